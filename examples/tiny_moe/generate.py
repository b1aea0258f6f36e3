"""Generate text from a release folder with ONNX Runtime: no torch, no transformers.

python examples/tiny_moe/generate.py FOLDER --prompt "TEXT" [--tokens 60] [--temperature 0.8]
"""

import argparse
from pathlib import Path

from tokenizers import Tokenizer

from converters.validation.generator import Generator


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.folder / "tokenizer.json"))
    prompt = tokenizer.encode(arguments.prompt).ids
    generated = Generator(arguments.folder).generate(
        prompt, arguments.tokens, temperature=arguments.temperature, seed=arguments.seed
    )
    print(tokenizer.decode([*prompt, *generated]))


if __name__ == "__main__":
    main()
