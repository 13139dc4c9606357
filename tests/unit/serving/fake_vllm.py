"""Stands in for vLLM: takes its arguments, checks its key, and answers with what it was sent. A script of its own."""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--served-model-name", required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--generation-config", choices=["vllm"], required=True)
parser.add_argument("--chat-template-content-format", choices=["openai"], required=True)
parser.add_argument("--max-num-seqs", type=int, required=True)
parser.add_argument("--gpu-memory-utilization", type=float, required=True)
parser.add_argument("--fail", default="", help="name of the model that does not start")
options = parser.parse_args()
if options.served_model_name == options.fail:
    sys.exit("no memory left")
assert (Path(options.model) / "config.json").is_file()
left = 0


async def health(_):
    return JSONResponse({})


async def number_left(_):
    return JSONResponse(left)


async def answer(request):
    path = request.path_params["path"]
    if request.headers["authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
        return JSONResponse({"error": {"message": "Unauthorized"}}, 401)
    body = await request.json()
    if body.get("top_k") == 13:
        return JSONResponse({"error": {"message": "thirteen is refused"}}, 400)
    if body.get("top_k") == 14:
        os._exit(3)
    return StreamingResponse(events(path, body), media_type="text/event-stream")


async def events(path, body):
    global left
    chat = path == "chat/completions"
    words = ["path", path, "body", json.dumps(body)]
    try:
        for word in words:
            choice = {"delta": {"content": f" {word}"}} if chat else {"text": f" {word}"}
            if body.get("logprobs") is not None:
                entry = {"token": word, "logprob": -0.5, "top_logprobs": [{"token": word, "logprob": -0.5}]}
                texts = {"tokens": [word], "token_logprobs": [-0.5], "top_logprobs": [{word: -0.5}]}
                choice["logprobs"] = {"content": [entry]} if chat else texts
            yield event({"choices": [choice]})
            while body.get("top_k") == 15:
                await asyncio.sleep(0.01)
        if body.get("top_k") == 16:
            yield event({"error": {"message": "an engine core died"}})
            return
        yield event({"choices": [{**({"delta": {}} if chat else {"text": ""}), "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 7, "completion_tokens": len(words), "prompt_tokens_details": {"cached_tokens": 3}}
        yield event({"choices": [], "usage": usage})
        yield "data: [DONE]\n\n"
    except asyncio.CancelledError:
        left += 1
        raise


def event(content):
    return f"data: {json.dumps(content)}\n\n"


routes = [Route("/health", health), Route("/left", number_left), Route("/v1/{path:path}", answer, methods=["POST"])]
uvicorn.run(Starlette(routes=routes), host=options.host, port=options.port, log_level="warning")
