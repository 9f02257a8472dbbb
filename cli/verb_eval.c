/* verb_eval.c - `noema eval` of vectors: zeroshot, retrieval, probe, knn, geometry, composition. */
#include "eval.h"

static const cli_option zeroshot_options[] = {
    EVAL_DATA,
    { "classes", 0, CLI_STRING, "FILE", "class names: one per line, a WordNet number before each or not, or JSON (default: the data's names)" },
    { "templates", 0, CLI_STRING, "none|openai|FILE", "none: the name alone; openai: its 80 for ImageNet; a file: one per line, {} is the name" },
    { "prompts", 0, CLI_LIST, "FILE.json", "names or templates by data set, as CLIP_benchmark has them; may be repeated" },
    { "prompts-dir", 0, CLI_STRING, "DIR", "holds LANGUAGE_classnames.json and LANGUAGE_zeroshot_classification_templates.json" },
    { "language", 0, CLI_STRING, "LANGUAGE", "of --prompts-dir (en)" },
    EVAL_VECTORS,
    { "texts", 0, CLI_STRING, "FILE", "class vectors [classes, dim]" },
    { "labels", 0, CLI_STRING, "FILE", "of --images or --scores: numbers [n], or 0 and 1 [n, classes] for several classes a picture" },
    { "scores", 0, CLI_STRING, "FILE", "scores [n, classes] instead of vectors" },
    { "logit-scale", 0, CLI_NUMBER, "S", "of the calibration error (the model's, else 100; of --scores 1)" },
    { "k", 0, CLI_STRING, "K,K...", "further top-k accuracies, besides 1 and 5" },
    { "predictions", 0, CLI_STRING, "FILE.npy", "write the scores [n, classes]" },
    EVAL_TIES, EVAL_NO_NORMALIZE, EVAL_COMMON, EVAL_END
};
static const cli_option retrieval_options[] = {
    EVAL_DATA, EVAL_VECTORS,
    { "texts", 0, CLI_STRING, "FILE", "text vectors [m, dim]" },
    { "pairs", 0, CLI_STRING, "FILE", "number of each text's picture [m] (default: as many texts each, in order)" },
    { "scores", 0, CLI_STRING, "FILE", "scores [n, m] instead of vectors" },
    { "k", 0, CLI_STRING, "K,K...", "recall at (1,5,10)" },
    { "rerank", 0, CLI_STRING, "K[,K]", "score the first K texts of a picture (and K pictures of a text) again by the ITM head of BLIP" },
    { "predictions", 0, CLI_STRING, "FILE.npy", "write the rank of each text's picture, from 1" },
    EVAL_TIES, EVAL_NO_NORMALIZE, EVAL_COMMON, EVAL_END
};
#define TRAIN_OPTIONS \
    { "train-data", 0, CLI_LIST, "FILE|DIR", "labelled pictures to learn from" }, \
    { "labels", 0, CLI_STRING, "FILE", "of --images [n]" }, \
    { "train-images", 0, CLI_STRING, "FILE", "vectors to learn from [n, dim]" }, \
    { "train-labels", 0, CLI_STRING, "FILE", "their labels [n]" }, \
    { "predictions", 0, CLI_STRING, "FILE.npy", "write the predicted classes [n]" }
static const cli_option probe_options[] = {
    EVAL_DATA, EVAL_VECTORS, TRAIN_OPTIONS,
    { "C", 0, CLI_NUMBER, "C", "weight of the data against 1/2|W|^2 (0.316; `noema probe` sweeps it)" },
    EVAL_COMMON, EVAL_END
};
static const cli_option knn_options[] = {
    EVAL_DATA, EVAL_VECTORS, TRAIN_OPTIONS,
    { "k", 0, CLI_STRING, "K", "neighbours (20)" },
    { "temperature", 0, CLI_NUMBER, "T", "votes weigh exp(cosine / T) (0.07); 0: one each" },
    { "euclid", 0, CLI_FLAG, NULL, "nearest by Euclidean distance of the vectors as they are" },
    EVAL_NO_NORMALIZE, EVAL_COMMON, EVAL_END
};
static const cli_option geometry_options[] = {
    EVAL_DATA, EVAL_VECTORS,
    { "texts", 0, CLI_STRING, "FILE", "text vectors [m, dim]" },
    { "pairs", 0, CLI_STRING, "FILE", "number of each text's picture [m] (default: as many texts each, in order)" },
    { "k", 0, CLI_STRING, "K", "neighbours of the hubness (10)" },
    { "logit-scale", 0, CLI_NUMBER, "S", "of the contrastive loss (the model's, else 100)" },
    EVAL_NO_NORMALIZE, EVAL_COMMON, EVAL_END
};
static const cli_option composition_options[] = {
    EVAL_DATA,
    { "scores", 0, CLI_STRING, "FILE", "[n, 2, 2] (caption, picture) or [n, choices] with the right one first, instead" },
    EVAL_COMMON, EVAL_END
};

#define FROM_VECTORS "Without a model:\n--train-images, --train-labels, --images, --labels."

static int run_zeroshot(cli *c) { return cli_eval(c, NOEMA_EVAL_ZEROSHOT, false); }
static int run_retrieval(cli *c) { return cli_eval(c, NOEMA_EVAL_RETRIEVAL, false); }
static int run_probe(cli *c) { return cli_eval(c, NOEMA_EVAL_PROBE, false); }
static int run_knn(cli *c) { return cli_eval(c, NOEMA_EVAL_KNN, false); }
static int run_geometry(cli *c) { return cli_eval(c, NOEMA_EVAL_GEOMETRY, false); }
static int run_composition(cli *c) { return cli_eval(c, NOEMA_EVAL_COMPOSITION, false); }

const cli_verb cli_verb_eval_zeroshot = {
    "eval zeroshot", "accuracy of classification by class names", "[options] -m MODEL [-m MODEL]... DATA...",
    "Prints one JSON object (one per model) with acc1, acc5, mean_per_class_recall and more; a table on a terminal. Class vectors are\n"
    "template embeddings normalised, averaged, normalised again. Labels that are numbers need --classes or --prompts; folders match\n"
    "the names, else their order. Without a model: --images, --texts and --labels, or --scores and --labels.",
    "noema eval zeroshot --classes cifar10.txt --templates openai cifar10-test.parquet", zeroshot_options, CLI_WITH_MODEL, run_zeroshot
};
const cli_verb cli_verb_eval_retrieval = {
    "eval retrieval", "recall of pictures by text and of texts by picture", "[options] -m MODEL [-m MODEL]... DATA...",
    "text_retrieval: a picture asks, right if any of its texts is among the first k. image_retrieval: a text asks. Without a model:\n"
    "--images and --texts, or --scores.",
    "noema eval retrieval --image-dir val2017 captions_val2017.json", retrieval_options, CLI_WITH_MODEL, run_retrieval
};
const cli_verb cli_verb_eval_probe = {
    "eval probe", "accuracy of logistic regression on picture features", "[options] -m MODEL --train-data FILE|DIR DATA...",
    "The minimum of C * sum of cross-entropies + 1/2 |W|^2, bias free, over the features before the projection. " FROM_VECTORS,
    "noema eval probe --train-data train.parquet test.parquet", probe_options, CLI_WITH_MODEL, run_probe
};
const cli_verb cli_verb_eval_knn = {
    "eval knn", "accuracy of the k nearest training pictures", "[options] -m MODEL --train-data FILE|DIR DATA...",
    "Weighted votes as in DINO's code, or a plain majority with --temperature 0; of equal votes the lowest class. " FROM_VECTORS,
    "noema eval knn --train-data train.parquet test.parquet", knn_options, CLI_WITH_MODEL, run_knn
};
const cli_verb cli_verb_eval_geometry = {
    "eval geometry", "alignment, uniformity, modality gap, effective rank, hubness", "[options] -m MODEL [-m MODEL]... DATA...",
    "Without a model: --images and / or --texts.",
    "noema eval geometry --images images.npy --texts texts.npy", geometry_options, CLI_WITH_MODEL, run_geometry
};
const cli_verb cli_verb_eval_composition = {
    "eval composition", "captions that differ in who does what: SugarCrepe, Winoground, ARO", "[options] -m MODEL [-m MODEL]... FILE.json...",
    "A tie is wrong. Winoground rows (image_0, image_1, caption_0, caption_1) give text, image and group scores. Without a model: --scores.",
    "noema eval composition --image-dir val2017 swap_obj.json", composition_options, CLI_WITH_MODEL, run_composition
};
