"""/tokenize, /detokenize, /apply-template, /tokenizer_info."""

from __future__ import annotations

from collections.abc import Sequence

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.endpoints.tokens.body import parse_detokenize, parse_template, parse_tokenize
from griffin.server.endpoints.tokens.reply import Rendered, Text, TokenizerInfo, tokens
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.protocol import Message
from griffin.server.service import Handler, Service
from griffin.server.tool_text import as_text


async def tokenize(service: Service, exchange: Exchange) -> Reply:
    """Turn a text or a conversation into ids.

    The name of a control token, alone, is that token: so remote tokenizers ask for its id.
    """
    body = await service.body(exchange)
    tokenizer = service.llm.tokenizer

    def do() -> Reply:
        asked = parse_tokenize(body, service.limits)
        service.serving(exchange, asked.model)
        if asked.messages is not None:
            ids: Sequence[int] = _conversation(service, asked.messages, asked.add_generation_prompt)
        else:
            assert asked.text is not None
            named = tokenizer.vocabulary.control.get(asked.text)
            if named is None:
                ids = service.text_ids(asked.text)[0 if asked.bos else 1 :]
            else:
                ids = (
                    [tokenizer.bos_id, named]
                    if asked.bos and named != tokenizer.bos_id
                    else [named]
                )
        pieces = [tokenizer.token_text(id) for id in ids] if asked.pieces else None
        return Reply(p.encode(tokens(ids, pieces)), p.ignored_header(asked.ignored))

    return await service.think(len(body), do)


async def detokenize(service: Service, exchange: Exchange) -> Reply:
    """Turn ids into text; control tokens are left out."""
    body = await service.body(exchange)

    def do() -> Reply:
        asked = parse_detokenize(body, service.limits)
        service.serving(exchange, asked.model)
        text = service.llm.tokenizer.decode(asked.tokens)
        return Reply(p.encode(Text(prompt=text, content=text)), p.ignored_header(asked.ignored))

    return await service.think(len(body), do)


async def apply_template(service: Service, exchange: Exchange) -> Reply:
    """Show what the model reads of a conversation."""
    body = await service.body(exchange)

    def do() -> Reply:
        asked = parse_template(body, service.limits)
        service.serving(exchange, asked.model)
        ids = _conversation(service, asked.messages, asked.add_generation_prompt)
        text = service.llm.tokenizer.decode(ids, skip_control=False)
        return Reply(p.encode(Rendered(prompt=text)), p.ignored_header(asked.ignored))

    return await service.think(len(body), do)


async def tokenizer_info(service: Service, exchange: Exchange) -> Reply:
    """Tell what a remote tokenizer needs to know."""
    tokenizer = service.llm.tokenizer

    def name(id: int | None) -> str | None:
        return None if id is None else tokenizer.vocabulary.pieces[id]

    bos, eos = name(tokenizer.bos_id), name(tokenizer.eos_id)
    assert bos is not None and eos is not None, "a special id is found by its name"
    told = TokenizerInfo(
        bos_token=bos,
        eos_token=eos,
        pad_token=name(tokenizer.pad_id),
        unk_token=name(tokenizer.unk_id),
        chat_template=tokenizer.chat_template,
        vocab_size=tokenizer.vocab_size,
    )
    return Reply(p.encode(told))


def _conversation(service: Service, messages: Sequence[Message], open_: bool) -> list[int]:
    try:
        return service.llm.chat_format.ids(p.turns(as_text(messages)), add_generation_prompt=open_)
    except ValueError as error:
        raise errors.of_value_error(error, "messages") from None


HANDLERS: dict[str, Handler] = {
    "POST /tokenize": tokenize,
    "POST /detokenize": detokenize,
    "POST /apply-template": apply_template,
    "GET /tokenizer_info": tokenizer_info,
}
