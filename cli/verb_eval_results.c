/* verb_eval_results.c - `noema eval` of what models wrote: captions, caption, clipscore, vqa, nlvr. */
#include "eval.h"

#define KEPT "until then they are kept in FILE.json.part, with which an interrupted call goes on"

#define REFERENCES { "references", 0, CLI_LIST, "FILE", "COCO captions, {\"id\": [captions]}, or text files with a line per picture; may be repeated" }
#define RESULTS { "results", 0, CLI_STRING, "FILE", "[{\"image_id\", \"caption\"}], {\"id\": caption}, or a text file" }
#define IMAGE_DIR { "image-dir", 0, CLI_STRING, "DIR", "where the pictures lie (default: beside the file that names them)" }
#define OVERLAP \
    { "tokens", 0, CLI_STRING, "ptb|space", "ptb: as pycocoevalcap; space: the texts are tokens already" }, \
    { "document-frequency", 0, CLI_STRING, "FILE.json", "of CIDEr: {\"images\": n, \"df\": {\"n gram\": count}} (default: from the references)" }, \
    { "meteor-words", 0, CLI_STRING, "FILE", "METEOR's function words, one per line" }, \
    { "meteor-synonyms", 0, CLI_STRING, "FILE", "METEOR's synonym sets (english.synsets)" }, \
    { "meteor-paraphrases", 0, CLI_STRING, "FILE", "METEOR's paraphrases (paraphrase-en.gz)" }, \
    { "per-item", 0, CLI_STRING, "FILE.csv", "write the scores of each picture" }

static const cli_option captions_options[] = { REFERENCES, RESULTS, OVERLAP, IMAGE_DIR,
    { "cache", 0, CLI_STRING, "DIR", "keep vectors there" },
    EVAL_COMMON, EVAL_END };
static const cli_option caption_options[] = { REFERENCES, IMAGE_DIR, OVERLAP,
    { "prompt", 0, CLI_STRING, "P", "captions begin with it" },
    { "beams", 0, CLI_INT, "N", "1: greedy" },
    { "max-new", 0, CLI_INT, "N", "new ids at most" },
    { "limit", 0, CLI_INT, "N", "the first N pictures only" },
    { "predictions", 0, CLI_STRING, "FILE.json", "write the captions as a result file; " KEPT },
    EVAL_COMMON, EVAL_END };
static const cli_option clipscore_options[] = { RESULTS, REFERENCES, IMAGE_DIR,
    { "prompt", 0, CLI_STRING, "P", "in front of each caption (\"A photo depicts \")" },
    { "per-item", 0, CLI_STRING, "FILE.csv", "write the scores of each picture" },
    { "cache", 0, CLI_STRING, "DIR", "keep vectors there" },
    EVAL_COMMON, EVAL_END };

#define GENERATE \
    { "prompt", 0, CLI_STRING, "P", "a template, {} is the question" }, \
    { "beams", 0, CLI_INT, "N", "1: greedy" }, \
    { "max-new", 0, CLI_INT, "N", "new ids at most" }
static const cli_option vqa_options[] = {
    { "annotations", 0, CLI_STRING, "FILE.json", "the right answers: VQA, OK-VQA, A-OKVQA" },
    { "questions", 0, CLI_STRING, "FILE.json", "the questions, where the annotations do not hold them" },
    { "results", 0, CLI_STRING, "FILE.json", "[{\"question_id\", \"answer\"}] (default: \"prediction\" in the annotations, or -m)" },
    IMAGE_DIR, GENERATE,
    { "limit", 0, CLI_INT, "N", "the first N questions only" },
    { "predictions", 0, CLI_STRING, "FILE.json", "write the model's answers as a result file; " KEPT },
    EVAL_COMMON, EVAL_END };
static const cli_option nlvr_options[] = {
    { "annotations", 0, CLI_STRING, "FILE", "statements with labels: NLVR2's lines, or BLIP's list" },
    { "results", 0, CLI_STRING, "FILE", "{\"identifier\": true}, or lines identifier,True (default: by -m)" },
    IMAGE_DIR,
    { "limit", 0, CLI_INT, "N", "the first N statements only" },
    { "predictions", 0, CLI_STRING, "FILE.json", "write the model's judgements as a result file; " KEPT },
    EVAL_COMMON, EVAL_END };

static int run_vqa(cli *c) { return cli_eval(c, NOEMA_EVAL_VQA, false); }
static int run_nlvr(cli *c) { return cli_eval(c, NOEMA_EVAL_NLVR, false); }
static int run_captions(cli *c) { return cli_eval(c, NOEMA_EVAL_CAPTIONS, false); }
static int run_caption(cli *c) { return cli_eval(c, NOEMA_EVAL_CAPTION, true); }
static int run_clipscore(cli *c) { return cli_eval(c, NOEMA_EVAL_CLIPSCORE, true); }

const cli_verb cli_verb_eval_captions = {
    "eval captions", "BLEU, ROUGE-L, CIDEr of captions against references", "[options] --references FILE --results FILE",
    "The figures of pycocoevalcap: CIDEr_D is what it calls CIDEr; CIDEr is the paper's. METEOR bears the names of its stages in its own\n"
    "(METEOR_exact_stem) until its three data files are given. With -m a CLIP model's CLIPScore and RefCLIPScore join them.",
    "noema eval captions --references captions_val2014.json --results results.json", captions_options, CLI_WITH_MODEL | CLI_NO_INPUTS, run_captions
};
const cli_verb cli_verb_eval_caption = {
    "eval caption", "write captions for the pictures of references, then measure them", "[options] -m MODEL --references FILE.json",
    NULL, "noema eval caption -m hf-hub:Salesforce/blip-image-captioning-base --references captions_val2014.json --image-dir val2014", caption_options, CLI_WITH_MODEL | CLI_NO_INPUTS,
    run_caption
};
const cli_verb cli_verb_eval_clipscore = {
    "eval clipscore", "captions against their pictures by a CLIP model", "[options] -m MODEL --results FILE.json [--references FILE.json] --image-dir DIR",
    "CLIPScore: 2.5 * max(cosine, 0). With references also RefCLIPScore. A picture is found by COCO's file name or as DIR/ID.jpg, .png, .webp.",
    "noema eval clipscore -m ViT-B-32/openai --results captions.json --image-dir pictures", clipscore_options, CLI_WITH_MODEL | CLI_NO_INPUTS, run_clipscore
};
const cli_verb cli_verb_eval_vqa = {
    "eval vqa", "accuracy of answers with the official normalisation", "[options] --annotations FILE.json --results FILE.json",
    "Figures in percent: overall, then by answer type. With -m and no results the model answers first; BLIP's questions are cleaned as its\n"
    "authors do.",
    "noema eval vqa --annotations v2_mscoco_val2014_annotations.json --results answers.json", vqa_options, CLI_WITH_MODEL | CLI_NO_INPUTS, run_vqa
};
const cli_verb cli_verb_eval_nlvr = {
    "eval nlvr", "statements about two pictures: accuracy and consistency", "[options] --annotations FILE --results FILE",
    "With -m (BLIP's NLVR2 files) the model judges; pictures are IDENTIFIER-img0.png, -img1.png without the identifier's last part.",
    "noema eval nlvr --annotations dev.json --results predictions.csv", nlvr_options, CLI_WITH_MODEL | CLI_NO_INPUTS, run_nlvr
};
