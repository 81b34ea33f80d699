"""The other side of the comparisons: plain transformers + peft + bitsandbytes, no spaCy.

Two variants of the same job (QLoRA token classification on BIO-JSON, one adapter, strict entity F1):

  recipe  the common tutorial recipe, made to run: padding to a fixed length, prepare_model_for_kbit_training,
          gradient checkpointing, LoRA r=8 alpha=16 on q/k/v/o, batch 8, transformers.Trainer
  tuned   what an expert would do with the stock libraries: dynamic padding, length grouping, bfloat16,
          all seven linears, no checkpointing where memory allows, a separate head learning rate is not available

and `infer`: transformers' token-classification pipeline over raw text with a 4-bit model (or --full for bfloat16).

Prints one JSON line: seconds, pieces/s, words/s, peak RSS (MiB), strict entity F1 where it applies.
Runs on CPU or CUDA, transformers 4.53 and 5.x.  Needs: torch transformers peft bitsandbytes accelerate seqeval.

  python hf_peer.py tuned --base BASE_DIR --train train.jsonl --dev dev.jsonl --epochs 1 --limit 1000
  python hf_peer.py infer --base BASE_DIR --dev dev.jsonl --limit 500
"""

import argparse
import inspect
import json
import random
import resource
import time
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def records(path, limit):
    lines = Path(path).read_text(encoding="utf8").splitlines()
    return [json.loads(line) for line in lines if line.strip()][: limit or None]


def read(path, limit):
    return [([x["word"] for x in r["labels"]], [x["entity"] for x in r["labels"]]) for r in records(path, limit)]


def encode(tokenizer, words, tags, label2id, max_length):
    """Pieces of each word; the last piece of a word carries its label, the others -100."""
    ids, labels = [], []
    for i, (word, tag) in enumerate(zip(words, tags, strict=True)):
        pieces = tokenizer.encode((" " if i else "") + word, add_special_tokens=False) or [0]
        ids += pieces
        labels += [-100] * (len(pieces) - 1) + [label2id.get(tag, 0)]
    return {"input_ids": ids[:max_length], "attention_mask": [1] * len(ids[:max_length]), "labels": labels[:max_length]}


def load(args, n_labels):
    dtype = torch.bfloat16
    key = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    kwargs = {key: dtype, "num_labels": n_labels}
    if args.layers:
        kwargs["num_hidden_layers"] = args.layers
    if not args.full:
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["score"],
        )
        kwargs["device_map"] = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForTokenClassification.from_pretrained(args.base, **kwargs)


def peak_mib():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def train(args, tokenizer):
    train_set, dev_set = read(args.train, args.limit), read(args.dev, args.limit_dev)
    names = ["O", *sorted({t for _, tags in train_set for t in tags} - {"O"})]
    label2id = {name: i for i, name in enumerate(names)}
    model = load(args, len(names))
    recipe = args.command == "recipe"
    if recipe:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=True)
    lora = LoraConfig(
        r=8 if recipe else 16,
        lora_alpha=16 if recipe else 32,
        lora_dropout=0.1 if recipe else 0.05,
        target_modules=LINEARS[:4] if recipe else LINEARS,
        bias="none",
        task_type="TOKEN_CLS",
    )
    model = get_peft_model(model, lora)
    data = [encode(tokenizer, w, t, label2id, args.max_length) for w, t in train_set]
    settings = {
        "output_dir": args.out,
        "num_train_epochs": args.epochs,
        "learning_rate": args.lr,
        "weight_decay": 0.01,
        "per_device_train_batch_size": args.batch,
        "per_device_eval_batch_size": args.batch,
        "save_strategy": "no",
        "report_to": [],
        "logging_steps": 50,
        "seed": args.seed,
        "dataloader_num_workers": 0,
        "bf16": not recipe,
        "gradient_checkpointing": recipe,
        "max_grad_norm": 1.0,
        "warmup_steps": 10,
        "disable_tqdm": True,
    }
    accepted = inspect.signature(TrainingArguments.__init__).parameters
    if "group_by_length" in accepted:
        settings["group_by_length"] = not recipe
    elif "train_sampling_strategy" in accepted and not recipe:
        settings["train_sampling_strategy"] = "group_by_length"
    if not torch.cuda.is_available():
        settings["use_cpu"] = True
    collator = DataCollatorForTokenClassification(
        tokenizer, padding="max_length" if recipe else True, max_length=args.max_length if recipe else None
    )
    trainer = Trainer(model=model, args=TrainingArguments(**settings), train_dataset=data, data_collator=collator)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    pieces = sum(len(x["input_ids"]) for x in data) * args.epochs
    model.eval()
    gold, guess = [], []
    with torch.inference_mode():
        for i in range(0, len(dev_set), 32):
            chunk = dev_set[i : i + 32]
            rows = [encode(tokenizer, w, t, label2id, args.max_length) for w, t in chunk]
            batch = collator([dict(r) for r in rows])
            batch.pop("labels")
            logits = model(**{k: v.to(model.device) for k, v in batch.items()}).logits.argmax(-1).tolist()
            for (words, tags), row, best in zip(chunk, rows, logits, strict=True):
                tagged = [names[b] for b, y in zip(best, row["labels"], strict=False) if y != -100]
                guess.append(tagged + ["O"] * (len(words) - len(tagged)))
                gold.append(tags)
    return {
        "train_s": round(seconds, 2),
        "pieces_per_s": round(pieces / seconds, 1),
        "pieces": pieces,
        "f1": round(f1_score(gold, guess, mode="strict", scheme=IOB2), 4),
    }


def infer(args, tokenizer):
    found = records(args.dev, args.limit)
    texts = [r["text"] for r in found]
    words = sum(len(r["labels"]) for r in found)
    model = load(args, 5).eval()
    pipe = transformers.pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple", batch_size=args.batch
    )
    pipe(texts[:8])
    start = time.perf_counter()
    pipe(texts)
    seconds = time.perf_counter() - start
    return {"infer_s": round(seconds, 2), "words_per_s": round(words / seconds, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["recipe", "tuned", "infer"])
    parser.add_argument("--base", required=True)
    parser.add_argument("--train")
    parser.add_argument("--dev", required=True)
    parser.add_argument("--out", default="hf_peer_out")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--limit-dev", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--layers", type=int, default=0, help="keep only the first N layers")
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="bfloat16 base instead of 4-bit")
    args = parser.parse_args()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    result = infer(args, tokenizer) if args.command == "infer" else train(args, tokenizer)
    environment = {"rss_mib": peak_mib(), "threads": torch.get_num_threads()}
    print(json.dumps({"peer": args.command, "full": args.full, **result, **environment}))


if __name__ == "__main__":
    main()
