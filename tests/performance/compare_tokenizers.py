# SPDX-License-Identifier: Apache-2.0
"""Encodes texts and trains vocabularies with dekoder, tiktoken and tokenizers, in turns, in one sitting, and prints a table.

    python3 jobs/setup/gpt2_merges.py data/gpt2 && python3 jobs/setup/austen_corpus.py data/austen.txt
    python3 -m venv venv && venv/bin/pip install tiktoken==0.14.0 tokenizers==0.23.3 numpy h5py
    venv/bin/python tests/performance/compare_tokenizers.py --dekoder "jobs/toolbox build/openmp/dekoder"

Method. Texts: Jane Austen's novels ten times over, and the C headers of this machine (--headers), one behind the other. dekoder
is timed as `dekoder prepare` with GPT-2's merges, from the text on disk to the synced token file, less the time of the same command for
a text of one line, which reads the merges too. The peers are timed with the text in memory and the tokenizer made, until the ids are in
memory: tiktoken's encode_to_numpy in a pool of threads, tokenizers' encode_batch_fast, both of pieces of about 64 KiB, which is
faster than one long text and gives the same ids (pieces end where no token can reach across). All must give the same ids,
and vocabularies the same merges. Training: `dekoder prepare --tokenizer bpe`, which encodes and writes too, against
train_from_iterator of the same pieces. Reading: `dekoder prepare --tokenizer byte`, and `cat`, of a file that the page cache has not.
Each runs on as many cores as threads, `--rounds` times in turns: medians of wall time; CPU time (of all threads) tells whether
other work was in the way. This reports and never fails on time.
"""
import argparse
import hashlib
import json
import os
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOCABULARY = 8192
PIECE, BATCH = 64 * 1024, 128  # characters of a piece, pieces of a batch
# In the form without possessive quantifiers, with which tiktoken is faster here than with that of its own 0.14.0.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def pieces_of(text):
    """Pieces that end in front of the last white space before a word: there GPT-2's pattern cuts anyway."""
    begin, end = 0, re.compile(r"\s(?=\S)")
    while begin < len(text):
        found = end.search(text, begin + PIECE)
        stop = found.start() if found else len(text)
        yield text[begin:stop]
        begin = stop


def worker(peer, threads, text_file, merges):
    """A peer in a process of its own: for each line of standard input one run, and its figures as a line of JSON."""
    text = Path(text_file).read_text(encoding="utf-8")
    pieces = list(pieces_of(text))
    batches = [pieces[i:i + BATCH] for i in range(0, len(pieces), BATCH)]
    files = f"{merges}/vocab.bpe", f"{merges}/encoder.json"
    if peer == "tiktoken":
        from concurrent.futures import ThreadPoolExecutor

        import tiktoken
        from tiktoken.load import data_gym_to_mergeable_bpe_ranks
        encoding = tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=data_gym_to_mergeable_bpe_ranks(*files),
                                     special_tokens={"<|endoftext|>": 50256})
        pool = ThreadPoolExecutor(threads)
        run = lambda batch: list(pool.map(lambda piece: encoding.encode_to_numpy(piece, disallowed_special=()), batch))  # noqa: E731
        ids_of = lambda ids: ids  # noqa: E731
    else:
        from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, trainers
        tokenizer = ByteLevelBPETokenizer(files[1], files[0])._tokenizer
        run = tokenizer.encode_batch_fast
        ids_of = lambda encoding: encoding.ids  # noqa: E731

    def train():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(pieces, trainers.BpeTrainer(
            vocab_size=VOCABULARY - 1, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        return [" ".join(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]

    import numpy
    for line in sys.stdin:
        digest, count, merges_made = hashlib.sha256(), 0, None
        wall = cpu = 0
        for batch in batches if line.strip() != "train" else [None]:
            start = time.perf_counter(), time.process_time()
            if batch is None:
                merges_made = train()
            else:
                encoded = run(batch)
            wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
            if line.strip() == "check":
                for ids in map(ids_of, encoded):
                    digest.update(numpy.asarray(ids, dtype="<u4").tobytes())
                    count += len(ids)
        answer = {"wall": wall, "cpu": cpu, "tokens": count, "digest": digest.hexdigest(), "merges": merges_made}
        print(json.dumps(answer), flush=True)


class Peer:
    def __init__(self, name, threads, text, merges, cores):
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
        self.process = subprocess.Popen([sys.executable, __file__, "--worker", name, str(threads), str(text), str(merges)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                                        preexec_fn=lambda: os.sched_setaffinity(0, cores))

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(command, cores, threads=1):
    """Wall and CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "false"},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    wall = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(map(str, command))}: exit code {done.returncode}\n{done.stderr.decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def forget(file):
    """Out of the page cache, which makes the next reading one of the disk."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Sitting:
    def __init__(self, options, folder):
        self.dekoder, self.merges, self.rounds, self.folder = shlex.split(options.dekoder), options.merges, options.rounds, folder
        self.cores = sorted(os.sched_getaffinity(0))
        self.line = folder / "line.txt"
        self.line.write_text("It is a truth universally acknowledged.\n")

    def prepare(self, text, threads, *tokenizer):
        output = self.folder / "tokens.h5"
        output.unlink(missing_ok=True)
        command = [*self.dekoder, "prepare", text, "-o", output, "--tokenizer", *tokenizer]
        return timed(command, set(self.cores[:threads]), threads)

    def net(self, text, threads, *tokenizer):
        empty = self.prepare(self.line, threads, *(tokenizer if tokenizer[0] != "bpe" else ("byte",)))
        return [whole - part for whole, part in zip(self.prepare(text, threads, *tokenizer), empty)]

    def report(self, what, text, threads, times):
        megabytes = text.stat().st_size / 1e6
        medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in times.items()}
        for name, (wall, cpu) in medians.items():
            ratios = [[other[i] / mine[i] for mine, other in zip(times["dekoder"], times[name])] for i in (0, 1)]
            print(f"  {what}, {text.stem}, {threads} thread{'s' * (threads > 1)}: {name:10} {wall:8.3f} s wall {cpu:8.3f} s CPU "
                  f"{megabytes / wall:7.1f} MB/s, {megabytes / cpu:7.1f} MB per CPU second" + ("" if name == "dekoder" else
                  "; dekoder is " + ", by CPU time ".join(f"{statistics.median(r):.2f} times as fast ({min(r):.2f} to {max(r):.2f})"
                                                          for r in ratios)), flush=True)

    def encode(self, text, threads):
        import h5py
        import numpy
        cores = set(self.cores[:threads])
        peers = {name: Peer(name, threads, text, self.merges, cores) for name in ("tiktoken", "tokenizers")}
        merges = self.merges / "vocab.bpe"
        self.prepare(text, threads, merges)
        with h5py.File(self.folder / "tokens.h5") as file:
            ids = file["tokens"][:-1].astype("<u4")  # without the end of the text
        expected = len(ids), hashlib.sha256(numpy.ascontiguousarray(ids).tobytes()).hexdigest()
        times = {"dekoder": [], **{name: [] for name in peers}}
        for turn in range(self.rounds):
            times["dekoder"].append(self.net(text, threads, merges))
            for name, peer in peers.items():
                answer = peer.ask("encode" if turn else "check")
                if turn == 0 and (answer["tokens"], answer["digest"]) != expected:
                    raise SystemExit(f"{name} gives other ids: {answer}, dekoder {expected}")
                times[name].append((answer["wall"], answer["cpu"]))
        for peer in peers.values():
            peer.close()
        self.report("encode", text, threads, times)

    def train(self, text, threads):
        peer = Peer("tokenizers", threads, text, self.merges, set(self.cores[:threads]))
        times, own = {"dekoder": [], "tokenizers": []}, self.folder / "own.json"
        for _ in range(self.rounds):
            times["dekoder"].append(self.net(text, threads, "bpe", "--vocabulary", str(VOCABULARY)))
            timed([*self.dekoder, "tokens", self.folder / "tokens.h5", "-o", own], set(self.cores))
            answer = peer.ask("train")
            times["tokenizers"].append((answer["wall"], answer["cpu"]))
            merges = json.loads(own.read_text(encoding="utf-8"))["model"]["merges"]
            if answer["merges"] != [" ".join(m) if isinstance(m, list) else m for m in merges]:
                raise SystemExit("the merges differ")
        peer.close()
        self.report(f"train {VOCABULARY}", text, threads, times)

    def read(self, text):
        times = {"dekoder": [], "cat": []}
        for _ in range(self.rounds):
            forget(text)
            times["dekoder"].append(self.prepare(text, len(self.cores), "byte"))
            forget(text)
            times["cat"].append(timed(["cat", text], set(self.cores)))  # into a pipe, as prepare's reading is a copy too
        self.report("read", text, len(self.cores), times)


def main():
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dekoder", default=str(root / "build/openmp/dekoder"), help="a command; default: %(default)s")
    parser.add_argument("--merges", type=Path, default=root / "data/gpt2", help="folder of vocab.bpe and encoder.json")
    parser.add_argument("--austen", type=Path, default=root / "data/austen.txt")
    parser.add_argument("--headers", type=Path, default=Path("/usr/include"), help="a folder of C headers; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--texts", choices=["novels", "headers"], nargs="*", default=["novels", "headers"])
    parser.add_argument("--only", choices=["encode", "train", "read"], nargs="*", default=["encode", "train", "read"])
    options = parser.parse_args()
    processor = re.search(r"Model name: *(.*)", subprocess.run(["lscpu"], capture_output=True, text=True).stdout)
    print(f"{processor[1] if processor else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores; load before: "
          f"{os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dekoder-speed-") as scratch:
        folder = Path(scratch)
        novels, headers = folder / "novels.txt", folder / "headers.txt"
        novels.write_bytes(options.austen.read_bytes() * 10)
        headers.write_text("".join(path.read_text(encoding="utf-8", errors="replace")
                                   for path in sorted(options.headers.rglob("*.h")) if path.is_file()), encoding="utf-8")
        sitting = Sitting(options, folder)
        for threads in options.threads:
            for text in (folder / f"{name}.txt" for name in options.texts):
                if "encode" in options.only:
                    sitting.encode(text, threads)
                if "train" in options.only:
                    sitting.train(text, threads)
        if "read" in options.only:
            sitting.read(headers)


if __name__ == "__main__":
    main()
