# The graph of a population: one job a shard (docs/population.md). Started by reproduce/population.py, which splits the
# folder, and writes the order of a shard anew where there is something to do in it: only then its job runs again.

import shlex
from pathlib import Path

SOURCE = Path(config["project"])
# After Snakemake's own strict mode: what a batch system says of processes that work together; here each is alone.
shell.prefix('set -euo pipefail; unset "${{!SLURM_@}}" "${{!PMI@}}"; ')


def quoted(text):
    """For the shell, and for Snakemake, which formats every command."""
    return shlex.quote(str(text)).replace("{", "{{").replace("}", "}}")


# What is not asked for here is what the executor's folder says of all rules.
ASKED = {name: config[key] for name, key in (("mem_mb", "memory_mb"), ("runtime", "minutes")) if config[key]}


rule all:
    input:
        [f"shards/{number:05d}/shard.json" for number in range(int(config["shards"]))],


rule shard:
    input:
        "shards/{shard}/order.json",
    output:
        "shards/{shard}/shard.json",
    log:
        "log/{shard}.txt",
    benchmark:
        "benchmarks/{shard}.tsv"
    retries: 2
    resources:
        gpu=int(config["gpu"]),
        **{name: lambda wildcards, attempt, asked=asked: attempt * int(asked) for name, asked in ASKED.items()},
    shell:
        " ".join(
            [
                *[quoted(part) for part in (config["python"], SOURCE / "reproduce" / "shard.py", config["output"])],
                "{wildcards.shard}",
                "--device",
                quoted(config["device"]),
                "> {log:q} 2>&1",
            ]
        )
