// Runs an export with transformers.js: node transformers_js.mjs PACKAGES FOLDER TASK MODEL_TYPE DTYPE TEXTS
// PACKAGES is a folder with node_modules; MODEL_TYPE takes the place of the config's unless it is empty.
import { createRequire } from "node:module";
import path from "node:path";

const [packages, folder, task, modelType, dtype, texts] = process.argv.slice(2);
const { AutoConfig, AutoModelForMaskedLM, AutoTokenizer, env, pipeline } = createRequire(path.join(packages, "x"))(
  "@huggingface/transformers",
);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const options = { dtype, config: await AutoConfig.from_pretrained(name) };
if (modelType) options.config.model_type = modelType;
const inputs = JSON.parse(texts);
const pipe = await pipeline(task, name, options);
const found =
  task === "feature-extraction"
    ? (await pipe(inputs, { pooling: "mean", normalize: true })).tolist()
    : await pipe(inputs, { top_k: 5 });
console.log(JSON.stringify(found));
