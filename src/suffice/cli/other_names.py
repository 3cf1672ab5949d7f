"""What other programs call our flags and commands: ms-swift, LLaMA-Factory, transformers, vLLM, llama.cpp, Ollama."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["OTHER_COMMANDS", "equivalent", "not_needed", "other_names"]

_OURS = {
    "--model": "--model-id --model-name-or-path --model-id-or-path --model-path --base-model --pretrained",
    "--adapters": "--adapter --adapter-name-or-path --adapter-path --ckpt-dir --lora-modules --lora-path --lora",
    "--hub": "--use-hf --use-modelscope-hub --use-ms",
    "--dtype": "--torch-dtype --infer-dtype --bf16 --fp16 --precision --compute-type",
    "--device": "--device-map --gpu --gpus --cuda",
    "--upstream": "--base-url --api-base --url --endpoint --server --proxy",
    "--engine": "--infer-backend --backend",
    "--prompt": "--query --question --input --text --message --instruction -p",
    "--dataset": "--val-dataset --eval-dataset --data --data-path --input-file --train-file --file --prompts",
    "--columns": "--column --column-mapping --field-mapping",
    "--system": "--system-prompt --default-system --sys",
    "--max-new-tokens": "--max-tokens --max-completion-tokens --max-output-tokens --n-predict --num-predict "
    "--max-gen-len --max-generated-tokens -n",
    "--max-length": "--cutoff-len --max-seq-len --max-seq-length --ctx-size --num-ctx --context-length --n-ctx "
    "--max-model-len --block-size --model-max-length",
    "--stop-words": "--stop --stop-sequences --stop-strings --stop-tokens",
    "--temperature": "--temp",
    "--repetition-penalty": "--repeat-penalty",
    "--max-thinking-tokens": "--thinking-budget --thinking-token-budget --reasoning-budget",
    "--concurrency": "--max-batch-size --batch-size --parallel --workers --num-workers --max-concurrency",
    "--output": "--result-path --output-file --save-path --export-dir --out --save-dir --result-dir",
    "--stream": "--streaming",
    "--trust-remote-code": "--trust-remote",
    "--lora-rank": "--lora-r --rank --lora-dim",
    "--lora-alpha": "--alpha",
    "--target-modules": "--lora-target --lora-target-modules",
    "--quantization": "--quantization-bit --quant-bits --load-in-4bit --quant-method",
    "--split-dataset-ratio": "--val-size --dataset-test-ratio --validation-split",
    "--num-train-epochs": "--epochs --num-epochs",
    "--learning-rate": "--lr",
    "--per-device-train-batch-size": "--batch-size --micro-batch-size --train-batch-size",
    "--gradient-accumulation-steps": "--grad-accum --accumulation-steps",
    "--output-dir": "--output-path --save-folder --logging-dir",
    "--resume": "--resume-from-checkpoint",
    "--truncation-strategy": "--truncation",
    "--gradient-checkpointing": "--use-gradient-checkpointing",
    "--max-running": "--max-num-seqs --max-concurrent-requests --parallel",
    "--max-waiting": "--max-queue-size",
    "--weight-bits": "--quantization --bits",
    "--dry-run": "--dryrun --check",
}
"""Each flag of ours with the names that it has elsewhere; the first of ours that a command has is meant."""

_NOT_NEEDED = {
    "the model's own chat template is used": "--template --chat-template --prompt-template --template-type",
    "config.json says what kind of model it is": "--model-type --task --architecture",
    "the command says it": "--do-train --do-predict --stage --task-type --do-sample",
    "sft trains LoRA, and qlora with --quantization 4bit": "--train-type --sft-type --finetuning-type --tuner-type",
    "give the path of the file to --dataset": "--dataset-dir --dataset-info",
    "#N takes rows, as in --dataset FILE#500": "--max-samples --train-dataset-sample --num-samples",
    "adapters are merged when they are loaded; suffice export --merge writes the merged model": "--merge-lora --merge",
    "an adapter's settings are read from its folder": "--load-args --load-data-args --args-file",
    "every run gets a folder of its own": "--overwrite-output-dir --add-version",
    "each run draws its curves": "--plot-loss",
    "keys are made with suffice keys create": "--api-key --api-keys",
}
"""Why a flag of other programs has no equal here."""

OTHER_COMMANDS = {
    "infer": "chat run generate ask complete predict prompt talk",
    "sft": "train finetune fine-tune lora tune pt rlhf",
    "export": "merge convert save",
    "serve": "server api deploy start web app ui webui",
    "plan": "memory estimate vram",
    "doctor": "env info collect-env check diagnose status bug",
    "models list": "list ls models-list cache scan",
    "models pull": "pull download fetch get install",
    "models rm": "rm remove delete",
    "keys create": "key token",
    "--version": "version",
    "--help": "help",
}
"""Our commands, with what others call them."""


def equivalent(flag: str, known: Collection[str]) -> str | None:
    """The flag among `known` that does what other programs' `flag` does."""
    return next((ours for ours, others in _OURS.items() if flag in others.split() and ours in known), None)


def not_needed(flag: str) -> str | None:
    """Why nothing has to be said with a `flag` that other programs have; None for any other flag."""
    return next((why for why, flags in _NOT_NEEDED.items() if flag in flags.split()), None)


def other_names(flag: str) -> str:
    """What other programs call a flag of ours, as words to search in."""
    return _OURS.get(flag, "")
