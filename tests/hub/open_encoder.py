"""Opens sentence encoders and cross-encoders as a stranger does: sentence-transformers, this package hidden.

    python open_encoder.py CLASS=NAME-OR-FOLDER...

Prints JSON, a line for each: what it gives for two texts.
"""

import json
import sys

from open_anywhere import Hide

sys.meta_path.insert(0, Hide())

import sentence_transformers  # noqa: E402

for kind, name in (word.split("=", 1) for word in sys.argv[1:]):
    model = getattr(sentence_transformers, kind)(name, device="cpu", trust_remote_code=True)
    assert type(model[0].model).__module__.startswith("transformers_modules."), type(model[0].model)
    if kind == "CrossEncoder":
        print(json.dumps(model.predict([("word1 word2", "word3")]).tolist()))
    else:
        found = [model.prompts, model.similarity_fn_name, model.max_seq_length, model.encode("word1").tolist()]
        print(json.dumps(found))
