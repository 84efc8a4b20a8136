# SPDX-License-Identifier: Apache-2.0
"""What is made from a dekoder run directory: report, comparison, publication figures, TensorBoard event files.

    run_reader        read_run(folder) -> Run: configuration, curves, restarts, samples, attention maps
    attention_reader  read_attention(run, folder or file) -> Attention: attention maps and head statistics
    report            dekoder-report: one self-contained HTML page
    compare           dekoder-compare: whether runs are a pair, and what differs
    runs.collect      collect(folders) -> [RunSummary]: all runs below folders; runs.command: dekoder-runs, their table
    sweep.command     dekoder-sweep: trials of a configuration with settings drawn, by any number of workers
    figures           dekoder-figures: PNG and PDF
    tensorboard_export  dekoder-tensorboard: event files
    runs.tracked_run  a run as trackers take it; runs.mlflow_export, runs.wandb_export: dekoder-mlflow, dekoder-wandb
    circuits          attention maps as BertViz and CircuitsVis take them

Every reader takes the files of a run that is still training, and raises errors.RunError with one message (what, where,
what was expected, what to do) for files that are missing, damaged or of another program. `commands` starts the commands
and `errors.run_command` ends them: whatever goes wrong becomes one line and an exit code there.
"""
