"""OpenAI's JSON <-> our records, both directions side by side; the only place that knows that JSON.

`provider.http` writes requests and reads answers; `serve` reads requests and writes answers. They share these files,
so that what one says the other understands is a law with a test: read(write(x)) == x.

    request    a conversation or a document with its sampling
    response   deltas as stream chunks, and the whole reply
    error      our error tree as status, body and headers

Source: https://platform.openai.com/docs/api-reference (chat/completions and completions, 2026), with the fields that
vLLM and llama.cpp add: top_k, min_p, repetition_penalty, ignore_eos; reasoning_content; token ids beside logprobs.
"""
