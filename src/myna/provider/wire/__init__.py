"""JSON <-> our records; the only place that knows the JSON of other people's APIs.

`provider.http` writes requests and reads answers; `serve` reads requests and writes answers. They share OpenAI's files, so
that what one says the other understands is a law with a test: read(write(x)) == x.

    body         a body, checked by its type; what is refused, and how it is said
    request      a conversation or a document with its sampling (OpenAI's chat and completions)
    response     deltas as stream chunks, and the whole reply
    responses, messages, ollama    the same of the other APIs: what is read; and beside each its writer
    tokens, moderations, embed     what is answered at once
    tools, form, calls             parts that several of them have
    frames, sse  what a stream of rows is cut into
    replies, answers    what we say, as types: the OpenAPI document, and what tests hold replies against
    batch        files and batches
    error        our error tree as status, body and headers, in each API's shape

Sources: https://platform.openai.com/docs/api-reference (2026), with the fields that vLLM and llama.cpp add: top_k, min_p,
repetition_penalty, ignore_eos; reasoning_content; token ids beside logprobs. The other APIs' are in their files.
"""
