/* eval.h - what the verbs of `noema eval` share: option tables, the run over models, JSON or a table. */
#ifndef NOEMA_CLI_EVAL_H
#define NOEMA_CLI_EVAL_H

#include "cli.h"
#include "noema/eval.h"

/* Rows of the option tables. */
#define EVAL_COMMON \
    { "dataset", 0, CLI_STRING, "NAME", "the data set's name: the key in prompt files, and in the report" }, \
    { "bootstrap", 0, CLI_INT, "N", "95 % intervals from N resamples by --seed (0: Wilson's, of shares only)" }, \
    { "published", 0, CLI_STRING, "FILE.csv", "compare with a table of CLIP_benchmark or open_clip" }, \
    { "published-name", 0, CLI_STRING, "NAME", "its row, \"MODEL PRETRAINED\" (default: by the model)" }
#define EVAL_DATA \
    { "data", 'd', CLI_LIST, "FILE|DIR", "pictures: folder of class folders, .parquet, .tar, .jsonl, .csv, .tsv, .safetensors, COCO .json; may be repeated" }, \
    { "image-dir", 0, CLI_STRING, "DIR", "where the pictures named in .json files lie (default: beside the file)" }, \
    { "csv-img-key", 0, CLI_STRING, "COLUMN", "(filepath)" }, \
    { "csv-caption-key", 0, CLI_STRING, "COLUMN", "(title)" }, \
    { "csv-label-key", 0, CLI_STRING, "COLUMN", "(label)" }, \
    { "limit", 0, CLI_INT, "N", "the first N pictures only" }, \
    { "cache", 0, CLI_STRING, "DIR", "keep vectors there: an interrupted run goes on, a repeated one is quick" }
#define EVAL_VECTORS \
    { "images", 0, CLI_STRING, "FILE", "picture vectors [n, dim] instead (.npy, .safetensors, FILE:NAME)" }
#define EVAL_NO_NORMALIZE { "no-normalize", 0, CLI_FLAG, NULL, "take vectors as they are (default: length 1)" }
#define EVAL_TIES { "ties", 0, CLI_STRING, "lowest|highest|optimistic|pessimistic", "which of equal scores stands in front (lowest: the first index)" }
#define EVAL_END { NULL, 0, CLI_FLAG, NULL, NULL }

/* Runs the task for each -m (once without a model) and prints. need_model: a usage error without -m. */
int cli_eval(cli *c, noema_eval_task task, bool need_model);

#endif
