/* embed.c - the smallest program: how near is each text to a picture?
 *   cc embed.c $(pkg-config --cflags --libs noema) -lm && ./a.out MODEL PICTURE TEXT... */
#include <noema/noema.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    noema_error err = NOEMA_ERROR_INIT;
    noema_context *ctx = NULL;
    noema_model *model = NULL;
    noema_session *session = NULL;
    size_t n = argc > 3 ? (size_t)argc - 3 : 0;
    if (n == 0 || noema_context_create(&ctx, NULL, &err) || noema_model_open(&model, ctx, argv[1], NULL, &err) ||
        noema_session_create(&session, model, &err))
        return fprintf(stderr, "%s\n", n ? err.message : "usage: embed MODEL PICTURE TEXT..."), 1;
    size_t dim = (size_t)noema_model_get_info(model)->embed_dim;
    float *image = malloc(dim * sizeof *image), *texts = malloc(n * dim * sizeof *texts), *probs = malloc(n * sizeof *probs);
    const char *const *paths = (const char *const *)argv + 2, *const *words = (const char *const *)argv + 3;
    if (noema_embed_image_files(session, 1, paths, NOEMA_NORMALIZE, image, NULL, &err) ||
        noema_embed_texts(session, n, words, NULL, NOEMA_NORMALIZE, texts, &err) || noema_classify(1, image, n, texts, dim, 100, probs, &err))
        return fprintf(stderr, "%s\n", err.message), 1;
    for (size_t i = 0; i < n; i++)
        printf("%.4f  %s\n", (double)probs[i], words[i]);
    free(image), free(texts), free(probs);
    noema_session_free(session), noema_model_free(model), noema_context_free(ctx);
    return 0;
}
