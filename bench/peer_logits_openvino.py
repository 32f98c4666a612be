"""OpenVINO's logits over given token ids, for bench/quality.py, which runs this with a Python that has openvino_genai.

    python bench/peer_logits_openvino.py MODEL.gguf < JOB.json > LOGITS

JOB and LOGITS are those of peer_logits.py. OpenVINO GenAI turns the file into a model of OpenVINO's, as its pipeline does
when it is timed, and that model is asked here for all its logits; the settings are the processor's defaults.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai


class Model:
    def __init__(self, path: str):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "model.gguf"
            place.symlink_to(Path(path).resolve())
            genai.LLMPipeline(str(place), "CPU", enable_save_ov_model=True)  # written beside the file
            compiled = ov.Core().compile_model(str(Path(folder) / "openvino_model.xml"), "CPU")
        self.request = compiled.create_infer_request()
        self.length = 0

    def clear(self) -> None:
        self.request.reset_state()
        self.length = 0

    def logits(self, ids: list[int]) -> np.ndarray:
        """float32 [len(ids), V], after what came before."""
        before, self.length = self.length, self.length + len(ids)
        given = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, self.length), np.int64),
            "position_ids": np.arange(before, self.length)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        return self.request.infer(given)["logits"][0]

    def greedy(self, prompt: list[int], most: int, stop: set[int]) -> list[int]:
        self.clear()
        answer, row = [], self.logits(prompt)[-1]
        while len(answer) < most:
            answer.append(int(row.argmax()))
            if answer[-1] in stop:
                break
            row = self.logits(answer[-1:])[-1]
        return answer


def main(path: str) -> None:
    job, model = json.load(sys.stdin), Model(path)
    for ids in job["chunks"]:
        model.clear()
        cut = max(len(ids) - job["decoded"], 1)
        sys.stdout.buffer.write(model.logits(ids[:cut]).tobytes())
        for i in range(cut, len(ids)):
            sys.stdout.buffer.write(model.logits(ids[i : i + 1]).tobytes())
    answers = [model.greedy(prompt, job["answer"], set(job["stop"])) for prompt in job["prompts"]]
    sys.stdout.buffer.write(json.dumps(answers).encode())


main(sys.argv[1])
