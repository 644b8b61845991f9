"""The fingerprint of a loaded model: what its states belong to."""

from __future__ import annotations

from griffin.llm import LLM
from griffin.model.packed import rounded_format
from griffin.sessions import Fingerprint, config_digest, json_digest


def fingerprint_of(llm: LLM) -> Fingerprint:
    """Return what a state of this model depends on.

    Weights laid out for the native kernels with their values as they are count as not quantized.
    The digest of the weights is taken once for an LLM, about a second for gigabytes.
    """
    begins, template = llm.beginning, llm.tokenizer.chat_template
    return Fingerprint(
        config=config_digest(llm.model.config),
        weights=llm.weights_digest,
        dtype=str(llm.model.dtype).removeprefix("torch."),
        quantization=rounded_format(llm.model) or "none",
        adapter=llm.adapter_digest or "none",
        tokenizer=llm.tokenizer.digest,
        template="none" if template is None else json_digest(template),
        tuned="none" if begins is None else f"{begins.keys}-{begins.digest}",
    )
