/* inspect_later.c - `noema inspect frames` and `inspect spectrogram`: named by the contract, waiting for video and sound. */
#include "cli.h"

static const cli_option options[] = {
    { "out", 'o', CLI_STRING, "FILE", "where the result would go, as .npy" },
    { NULL, 0, CLI_FLAG, NULL, NULL }
};

static int frames(cli *c)
{
    cli_warn(c, "this release has no video decoder: frames come with X-CLIP");
    return CLI_NOTHING_DONE;
}

static int spectrogram(cli *c)
{
    cli_warn(c, "this release has no sound decoder: spectrograms come with ImageBind");
    return CLI_NOTHING_DONE;
}

const cli_verb cli_verb_inspect_frames = {
    "inspect frames", "the frames that a model takes of a video (not yet: needs video)", "-m MODEL VIDEO... [--out F.npy]",
    "Not in this release: exits with 3.", "noema inspect frames --help", options, CLI_WITH_MODEL, frames
};
const cli_verb cli_verb_inspect_spectrogram = {
    "inspect spectrogram", "the spectrogram that a model gets of a sound (not yet: needs sound)", "-m MODEL SOUND --out F.npy",
    "Not in this release: exits with 3.", "noema inspect spectrogram --help", options, CLI_WITH_MODEL, spectrogram
};
