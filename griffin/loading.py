"""From a name, a folder or a repository to a model, with its tokenizer or alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from griffin import checkpoints
from griffin.adapters import adapt, check_base, check_together, open_adapter, open_tuned
from griffin.capacity import model_bytes
from griffin.checkpoints.model_names import resolve
from griffin.defaults import read_defaults
from griffin.llm import LLM
from griffin.model import Griffin, GriffinConfig
from griffin.model.decode_step import lay_weights
from griffin.model.step_kernels import why_no_kernels
from griffin.quant import fastest_layout, get_format
from griffin.quant.screen import check_screen
from griffin.text import Tokenizer, find_tokenizer, two_answers

__all__ = ["find_tokenizer", "load", "load_model", "load_tokenizer"]


def load(
    path_or_repo: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    config: GriffinConfig | Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    quantize: str | None = None,
    screen: bool | None = None,
    adapter: str | Path | Mapping[str, str | Path] | None = None,
    state: str | Path | None = None,
    graphs: bool = True,
    progress: Callable[[checkpoints.Progress], None] | None = None,
) -> LLM:
    """Load a model with its tokenizer.

    path_or_repo: "nano" (the bundled model), a folder or archive of any released layout, or a
                  repository of the Hugging Face Hub, such as "google/recurrentgemma-2b-it".
    dtype:        type of the weights, "bfloat16" or torch.bfloat16; as stored if omitted.
    device:       "cpu", "cuda", ...; a GPU if there is one, if omitted.
    config:       for DeepMind archives of unreleased shapes: what the files do not say.
    tokenizer:    folder or file of the tokenizer; beside the weights, or in the folder above, if
                  omitted.
    revision:     branch, tag or commit of a repository.
    quantize:     "int8" or "int4": round the weights while loading. What `griffin quantize` wrote
                  needs no such word. If omitted, bfloat16 weights on the CPU are laid out for the
                  native kernels, with their values as they are ("bf16"); `load_model` leaves them
                  where they lie.
    screen:       read few bits of the head first, whole only its best rows, on a CPU, for packed
                  weights (docs/quantization.md). If omitted, where `griffin quantize --screen`
                  stored them; False leaves that out.
    adapter:      folder of a LoRA that reads and answers, or several by name, of which the first
                  does until `LLM.using` takes another.
    state:        file of a tuned state, which stands before every text that is read.
    graphs:       on a GPU whose kernels serve the model, step by CUDA graphs; False to debug.
    progress:     called before each tensor is read, with the bytes done and in all.
    Raises ValueError for files that are missing, torn or do not fit together, and says which.
    """
    # What is wrong in the call is told before a repository is fetched or a weight is read.
    if not isinstance(path_or_repo, (str, os.PathLike)):
        raise ValueError(f"griffin.load takes a path or a name, not {path_or_repo!r}")
    place = check_device(device)
    wanted = None if dtype is None else checkpoints.parse_dtype(dtype)
    if quantize is not None:
        get_format(quantize)
    given = None if tokenizer is None else Tokenizer.open(tokenizer)
    source = checkpoints.open(path_or_repo, config=config, revision=revision)
    folder = source.folder
    text = given or Tokenizer.open(find_tokenizer(folder))
    if text.vocab_size > source.config.vocab_size:
        raise ValueError(
            f"the tokenizer {text.path} has {text.vocab_size} ids, the model in {folder} only "
            f"{source.config.vocab_size} embeddings; they do not belong together"
        )
    given_adapters = (
        adapter if isinstance(adapter, Mapping) else {} if adapter is None else {"": adapter}
    )
    adapters = [open_adapter(place, name or None) for name, place in given_adapters.items()]
    for each in adapters:
        each.check(source.config)
    if adapters:
        check_together(adapters)
        check_base(adapters, source, str(path_or_repo))
    tuned = None if state is None else open_tuned(state)
    defaults = read_defaults(folder, source.config.vocab_size)
    for note in (*two_answers(text), *defaults.notes):
        warnings.warn(note, checkpoints.CheckpointWarning, stacklevel=2)
    if quantize is None and source.quantization is None:
        quantize = fastest_layout(wanted or source.own_dtype, place)
    if screen:
        check_screen(torch.device(place), bool(quantize or source.quantization))
    _check_room(source, wanted, quantize, place)
    model = checkpoints.load_model(
        source, dtype=dtype, device=place, quantize=quantize, screen=screen, progress=progress
    )

    model.by_graphs = graphs
    if adapters:
        adapt(model, adapters)
    elif graphs and why_no_kernels(model.config, model.dtype, model.device) is None:
        lay_weights(model)  # packed ones anew, a few at a time: they never lie there twice

    # Opened anew: nothing stays mapped for a digest that may never be asked for.
    def weights() -> str:
        return checkpoints.open(path_or_repo, config=config, revision=revision).digest()

    llm = LLM(
        model.eval(),
        text,
        defaults=defaults.params,
        chat_defaults=defaults.chat,
        stop_ids=defaults.stop_ids,
        name=str(path_or_repo),
        weights=weights,
        tuned=tuned,
    )
    llm.caution = _caution(llm)
    return llm


def load_model(
    path_or_repo: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    config: GriffinConfig | Mapping[str, Any] | None = None,
    revision: str | None = None,
    quantize: str | None = None,
    screen: bool | None = None,
) -> Griffin:
    """Load the model alone; no tokenizer is needed. Arguments as for `load`."""
    place = check_device(device)
    source = checkpoints.open(path_or_repo, config=config, revision=revision)
    wanted = None if dtype is None else checkpoints.parse_dtype(dtype)
    _check_room(source, wanted, quantize, place)
    model = checkpoints.load_model(
        source, dtype=dtype, device=place, quantize=quantize, screen=screen
    )
    return model.eval()


def load_tokenizer(path_or_repo: str | Path, *, revision: str | None = None) -> Tokenizer:
    """Open a tokenizer alone: a file, a folder, or what stands beside the weights of a model that
    `load` takes. Raises ValueError where there is none."""
    place = Path(resolve(str(path_or_repo))).expanduser()
    if revision is None and place.name in ("tokenizer.json", "tokenizer.model"):
        return Tokenizer.open(place)
    if revision is None and place.is_dir():
        return Tokenizer.open(find_tokenizer(place))
    source = checkpoints.open(path_or_repo, revision=revision)
    return Tokenizer.open(find_tokenizer(source.folder))


def _caution(llm: LLM) -> str:
    """Return what a user should know of a model that answers nothing, or little."""
    real = "recurrentgemma-2b-it"
    # Clients of a server read this: of a folder no more than what it is called.
    name = Path(llm.name).name if Path(llm.name).expanduser().exists() else llm.name
    bundled = isinstance(resolve(llm.name), Path)
    if bundled and llm.talks:
        size = model_bytes(llm.model.config, torch.bfloat16) / 2e6
        return (
            f"{name} is a toy of {size:.1f} million weights: it knows little, and errs; a large"
            f" one: {real}"
        )
    if bundled:
        said = f"{name} is a toy: it writes Python-like text and answers nothing"
    elif not llm.talks:
        said = f"{name} brings no chat template: a base model continues, it does not answer"
    else:
        return ""
    return f"{said}; one that answers: {real}"


def _check_room(
    source: checkpoints.Checkpoint,
    dtype: torch.dtype | None,
    quantize: str | None,
    device: torch.device | str,
) -> None:
    """Raise ValueError for a GPU that has no room for the weights, before one is read."""
    place = torch.device(device)
    if place.type != "cuda":
        return
    packed = source.quantization
    own, head = (None, None) if packed is None else (packed.format, packed.head)
    shape = source.config, dtype or source.own_dtype
    needed = model_bytes(*shape, quantize or own, head)
    free, total = torch.cuda.mem_get_info(place.index or 0)
    if needed <= free:
        return
    smaller = [f for f in ("int8", "int4") if own is None and model_bytes(*shape, f) <= free]
    would = f"; quantize={' or '.join(smaller)} would fit" if smaller else ""
    name = torch.cuda.get_device_name(place.index or 0)
    raise ValueError(
        f"the weights take {needed:,} bytes, and {free:,} of {total:,} are free on"
        f" cuda:{place.index or 0} ({name}){would}"
    )


def named_device(device: torch.device | str) -> torch.device:
    """Return a device by its name, here or not; ValueError for a name that none has."""
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"there is no device {device!r}; write cpu, cuda or cuda:1") from None


def check_device(device: torch.device | str | None) -> torch.device | str:
    """Return a device that is here, the best for None; ValueError for one that is not."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    place = named_device(device)
    missing = place.type == "mps" and not torch.backends.mps.is_available()
    if missing or place.type == "meta":
        raise ValueError(f"there is no device {str(device)!r} here; write cpu, cuda or cuda:1")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {str(device)!r}, but torch {torch.__version__} finds no GPU here: install a"
            " CUDA build of torch and its driver, or leave the device out"
        )
    if place.type == "cuda" and (place.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(
            f"device is {str(device)!r}; of the GPUs that this process sees"
            f" {'there is cuda:0 alone' if count == 1 else f'the last is cuda:{count - 1}'}"
            " (CUDA_VISIBLE_DEVICES chooses them)"
        )
    return device
