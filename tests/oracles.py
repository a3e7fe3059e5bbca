"""What the tests here share: tiny models of sizes all different, in float64, random cuts of them, and examples."""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from schubert_hf import SchuBertConfig, anatomy
from schubert_hf.anatomy import Axis
from schubert_hf.auto import MODELS
from schubert_hf.cost import ParameterCost
from schubert_hf.pruning.gates import Gates
from schubert_hf.pruning.plan import PruningPlan
from schubert_hf.pruning.units import Group, find_groups
from schubert_hf.shape import Shape

RAGGED: dict[str, Any] = {
    "hidden_sizes": [37, 31, 43],
    "filter_sizes": [41, 29, 53],
    "head_counts": [3, 2, 1],
    "key_query_sizes": [5, 7, 3],
    "value_sizes": [9, 4, 13],
    "vocab_size": 99,
    "max_position_embeddings": 23,
}
CLASSES = list(MODELS.values())
WORDS = 94
QUICK: dict[str, Any] = {
    "rounds": 2,
    "alpha_steps": 2,
    "recovery_steps": 2,
    "batch_size": 8,
    "eval_examples": 24,
    "dimensions": "hfakv",  # `auto` has e, too: to refit the masked-LM transform takes most of a tiny model's run
}


def save_edited(model: Any, edit: Callable[[dict[str, Tensor]], Any], folder: Path) -> Path:
    """Saves a model, with its tensors edited, in `folder`; returns that."""
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def same_weights(ours: Any, theirs: Any) -> bool:
    """Whether two models have the same tensors, bit for bit."""
    ours, theirs = ours.state_dict(), theirs.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def untimed(result: Any) -> list[dict[str, Any]]:
    """The records of a run's rounds, without how long they took."""
    return [{**record.to_json(), "seconds": None} for record in result.rounds]


def make_examples(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Sentence pairs that count upwards; B goes on where A stopped, or starts anywhere."""
    rng = random.Random(seed)
    examples = []
    for _ in range(number):
        first, second = rng.randint(2, 8), rng.randint(2, 8)
        start, is_random = rng.randrange(WORDS), rng.random() < 0.5
        other = rng.randrange(WORDS) if is_random else start + first
        a, b = ([5 + (begin + i) % WORDS for i in range(n)] for begin, n in ((start, first), (other, second)))
        ids = [2, *a, 3, *b, 3]
        segments = [0] * (first + 2) + [1] * (second + 1)
        examples.append({"input_ids": ids, "token_type_ids": segments, "next_sentence_label": int(is_random)})
    return examples


def documents(files: list[int]) -> Iterator[dict[str, str]]:
    """Documents of a few sentences each, file by file."""
    for file in files:
        rng = random.Random(file)
        for _ in range(40):
            starts = [rng.randrange(WORDS) for _ in range(rng.randint(2, 9))]
            yield {"text": " ".join(" ".join(f"w{(s + n) % WORDS}" for n in range(4)) + "." for s in starts)}


def ragged(**fields: Any) -> SchuBertConfig:
    return SchuBertConfig(**{**RAGGED, **fields})


def build(kind: type, config: SchuBertConfig | None = None, **options: Any) -> Any:
    """A float64 model in evaluation mode, every parameter of it of a size that matters."""
    torch.manual_seed(1)
    model = kind(config or ragged(), **options).double().eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "LayerNorm.weight" in name else 0.0, std=0.3)
    return model


def parameter_cost(config: SchuBertConfig, kind: str, **options: Any) -> ParameterCost:
    """The cost of a class by its name, off a model without memory."""
    (found,) = (model for model in CLASSES if model.__name__ == kind)
    with torch.device("meta"):
        return ParameterCost(found(config, **options))


class RemovingGates(Gates):
    """Gates that can remove units: a gated model with removed units computes what the compacted one computes.

    A removed channel also leaves the residual stream, and LayerNorms take their statistics over the others; a removed
    layer is passed by.
    """

    removed: frozenset[Group] = frozenset()

    def zero(self, removed: dict[Group, Tensor]) -> None:
        with torch.no_grad():
            for group, indices in removed.items():
                self[group][indices] = 0.0
        self.removed |= {group for group, indices in removed.items() if len(indices)}

    @contextlib.contextmanager
    def attached(self, model: PreTrainedModel) -> Iterator[None]:
        with super().attached(model), contextlib.ExitStack() as stack:
            for number, layer in enumerate(anatomy.layers(model)):
                if Group("l", number) in self.removed:
                    hook = layer.module.register_forward_hook(lambda _m, args, _o: args[0])
                    stack.callback(hook.remove)
            for name, module in model.named_modules() if self.removed & {Group("h", None), Group("e", None)} else ():
                if next(module.parameters(recurse=False), None) is not None:
                    where = anatomy.place(name)
                    axis = where.rows if not where.row.gated else None
                    if axis is not None and axis.kind in ("hidden", "embedding") and self.factor(axis) is not None:
                        stack.callback(module.register_forward_hook(self._hook(axis)).remove)
            yield

    def _hook(self, axis: Axis) -> Any:
        def hook(module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            alpha = self.factor(axis)
            assert alpha is not None
            live = (alpha.detach() != 0).to(alpha.dtype)
            if not isinstance(module, torch.nn.LayerNorm):
                return output * live.to(output.dtype)
            stream = args[0].to(torch.promote_types(args[0].dtype, torch.float32))
            centred = (stream - (stream * live).sum(-1, keepdim=True) / live.sum()) * live
            variance = centred.square().sum(-1, keepdim=True) / live.sum()
            normalized = centred * torch.rsqrt(variance + module.eps)
            return ((normalized * module.weight + module.bias) * live).to(output.dtype)

        return hook


def build_gates(config: SchuBertConfig, dimensions: str = "hfakv") -> RemovingGates:
    """Float64 alphas, none of them 0 or 1, some negative."""
    gates = RemovingGates(config, dimensions).double()
    torch.manual_seed(2)
    for alpha in gates.parameters():
        torch.nn.init.uniform_(alpha, 0.5, 1.5)
        with torch.no_grad():
            alpha[::3] *= -1
    return gates


def compute(model: PreTrainedModel, gates: Gates | None = None) -> list[Tensor]:
    """All outputs of a model on a padded batch of two."""
    torch.manual_seed(3)
    shape = (2, 3, 11) if "MultipleChoice" in type(model).__name__ else (2, 11)
    mask = torch.ones(shape, dtype=torch.long)
    mask[0, ..., 7:] = 0
    inputs = {
        "input_ids": torch.randint(0, 99, shape),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, 2, shape),
    }
    with torch.no_grad(), gates.attached(model) if gates is not None else contextlib.nullcontext():
        return [output for output in model(**inputs).to_tuple() if output is not None]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest absolute difference; a number that cannot be small where the shapes differ."""
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return float("inf")
    return max(float((x.double() - y.double()).abs().max()) for x, y in zip(ours, theirs, strict=True))


def surviving(outputs: list[Tensor], kind: type, plan: PruningPlan) -> list[Tensor]:
    """Of outputs that are hidden states, the channels that a plan keeps; other outputs as they are."""
    channels = plan.kept(Axis("hidden", -1))
    return [x[..., channels] for x in outputs] if kind.__name__ == "SchuBertModel" else outputs


@st.composite
def cuts(draw: st.DrawFn, config: SchuBertConfig, dimensions: str = "hfakv") -> dict[Group, list[int]]:
    """Units to remove by group: any that a plan may remove, all filters or heads of a layer included."""
    removed = {}
    stays = draw(st.integers(0, len(config.hidden_sizes) - 1), label="layer that stays")
    for group, units in find_groups(config, dimensions).items():
        gone = draw(st.sets(st.integers(0, units - 1)), label=str(group))
        if group.dimension in "kve":
            gone -= {units // 2}
        if group.dimension == "h":
            gone -= {min(config.hidden_sizes) // 2}
        if group == Group("l", stays):
            gone = set()
        removed[group] = sorted(gone)
    return removed


def plan_without(config: SchuBertConfig, removed: dict[Group, list[int]]) -> PruningPlan:
    groups = find_groups(config, "hfakvel" if len(set(config.hidden_sizes)) == 1 else "hfakve")
    kept = {group: tuple(n for n in range(groups[group]) if n not in gone) for group, gone in removed.items()}
    return PruningPlan.from_kept(Shape.of(config), kept)


def zeroed(gates: RemovingGates, removed: dict[Group, list[int]]) -> RemovingGates:
    gates.zero({group: torch.tensor(gone, dtype=torch.long) for group, gone in removed.items()})
    return gates


def batches(number=3):
    torch.manual_seed(6)
    mask = torch.ones(4, 11, dtype=torch.long)
    mask[1, 5:] = 0
    return [{"input_ids": torch.randint(0, 99, (4, 11)), "attention_mask": mask} for _ in range(number)]
