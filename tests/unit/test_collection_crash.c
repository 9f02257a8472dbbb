/* test_collection_crash.c - a writer that is killed or runs out of disk loses nothing that was committed, and readers beside a
 * writer see whole commits only. */
#include "collection_util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static noema_error err;

enum { TOTAL = 3000, BATCH = 37, REPLACED = 40 };

/* The job that is interrupted: items [0, TOTAL) in commits of BATCH, and in each commit one removal of a helper item and one
 * replacement, so that every kind of change is cut off somewhere. Goes on where the collection is. */
static int work(const char *path)
{
    noema_collection *c;
    noema_error e = NOEMA_ERROR_INIT;
    if (noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &e) != NOEMA_OK) {
        fprintf(stderr, "%s\n", e.message);
        return 2;
    }
    int r = 0;
    for (;;) {
        int64_t n = noema_collection_get_info(c)->n_items;
        if (n >= TOTAL)
            break;
        int64_t to = n + BATCH < TOTAL ? n + BATCH : TOTAL;
        if (add_range(c, n > REPLACED ? n - REPLACED : 0, to, &e) != NOEMA_OK) { /* some again, some new */
            fprintf(stderr, "%s\n", e.message);
            r = 3;
            break;
        }
        if (n / BATCH % 20 == 19 && noema_collection_compact(c, &e) != NOEMA_OK) {
            fprintf(stderr, "%s\n", e.message);
            r = 4;
            break;
        }
    }
    noema_collection_free(c);
    return r;
}

static void test_kill_at_any_moment(void **state)
{
    (void)state;
    const char *path = in_tmp("killed");
    int kills = 0, finished = 0;
    srand(11);
    for (int round = 0; round < 400 && !finished; round++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(work(path));
        assert_true(pid > 0);
        struct timespec t = { 0, (rand() % 16000) * 1000L + (round % 7 == 0 ? 40000000L : 0) };
        nanosleep(&t, NULL);
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            finished = 1;
        } else
            kills++;
        noema_collection *c;
        if (round % 5 == 4 && noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_READONLY, NULL) == NOEMA_OK) {
            assert_string_equal(noema_collection_get_info(c)->notes, "");
            OK(noema_collection_check(c, &err));
            expect_exactly(c, noema_collection_get_info(c)->n_items);
            noema_collection_free(c);
        }
    }
    if (!finished)
        assert_int_equal(work(path), 0);
    noema_collection *c;
    OK(noema_collection_open(&c, NULL, path, 0, &err));
    print_message("%d kills\n", kills);
    assert_true(kills >= 5);
    OK(noema_collection_check(c, &err));
    expect_exactly(c, TOTAL);
    OK(noema_collection_compact(c, &err));
    expect_exactly(c, TOTAL);
    noema_collection_free(c);
}

/* A file size limit stops every write that would pass it, in the segment or in the catalogue: as a full disk does. */
static int work_limited(const char *path, rlim_t bytes)
{
    struct rlimit l = { bytes, bytes };
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &l) != 0)
        return 9;
    noema_collection *c;
    noema_error e = NOEMA_ERROR_INIT;
    noema_status s = noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &e);
    int64_t n = 0;
    while (s == NOEMA_OK && n < TOTAL) {
        n = noema_collection_get_info(c)->n_items;
        s = add_range(c, n, n + 5, &e);
        if (s != NOEMA_OK) { /* the handle still works, with what was there before */
            if (noema_collection_get_info(c)->n_items != n)
                return 8;
            if (noema_collection_check(c, NULL) != NOEMA_OK)
                return 7;
        }
    }
    if (s != NOEMA_OK)
        noema_collection_free(c);
    return s == NOEMA_E_IO && e.message[0] && strstr(e.message, tmp_dir) ? 0 : s == NOEMA_OK ? 5 : 6;
}

static void test_full_disk(void **state)
{
    (void)state;
    const char *path = in_tmp("full");
    int64_t before = 0;
    for (rlim_t limit = 1000; limit < 160000; limit += 6999) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(work_limited(path, limit));
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) != 0)
            print_error("limit %ld: %d\n", (long)limit, WEXITSTATUS(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        noema_collection *c;
        if (noema_collection_open(&c, NULL, path, limit % 2 ? 0 : NOEMA_COLLECTION_READONLY, &err) != NOEMA_OK) {
            assert_int_equal(before, 0); /* not even the schema had room */
            continue;
        }
        int64_t n = noema_collection_get_info(c)->n_items;
        assert_true(n >= before);
        OK(noema_collection_check(c, &err));
        expect_exactly(c, n);
        before = n;
        noema_collection_free(c);
    }
    assert_true(before > 100);
    assert_int_equal(work(path), 0); /* with room again, it goes on */
    noema_collection *c;
    OK(noema_collection_open(&c, NULL, path, 0, &err));
    expect_exactly(c, TOTAL);
    noema_collection_free(c);
}

static void test_one_writer_many_readers(void **state)
{
    (void)state;
    const char *path = in_tmp("shared");
    noema_collection *c, *second;
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &err));
    FAILS(noema_collection_open(&second, NULL, path, 0, &err), NOEMA_E_IO, "another process is writing");
    OK(add_range(c, 0, BATCH, &err));
    noema_collection_free(c);
    pid_t pid = fork();
    if (pid == 0)
        _exit(work(path));
    noema_collection *r;
    OK(noema_collection_open(&r, NULL, path, NOEMA_COLLECTION_READONLY, &err));
    int64_t last = 0, steps = 0;
    int status = 0;
    for (bool running = true; running;) {
        running = waitpid(pid, &status, WNOHANG) == 0;
        float q[DIM];
        noema_match m[2];
        size_t n;
        int64_t have = noema_collection_get_info(r)->n_items, pick = have / 2;
        assert_true(have >= last);
        assert_true(have % BATCH == 0 || have == TOTAL); /* whole commits */
        steps += have != last;
        last = have;
        vector(pick, q);
        OK(noema_collection_search(r, 1, q, 2, NULL, m, &n, &err));
        assert_int_equal(n, 2);
        assert_int_equal(atoi(m[0].path + 6), pick);
        assert_true(m[0].score > 0.99999f);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_true(steps > 3);
    expect_exactly(r, TOTAL);
    noema_collection_free(r);
}

/* Read-only media: no lock, no journal, nothing written. Root may write anywhere, so only others see the difference. */
static void test_read_only_folder(void **state)
{
    (void)state;
    const char *path = in_tmp("ro");
    noema_collection *c;
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_CREATE, &err));
    OK(add_range(c, 0, 10, &err));
    noema_collection_free(c);
    char cmd[512];
    snprintf(cmd, sizeof cmd, "rm -f %s/lock && chmod -R a-w %s && chmod a+x %s", path, path, path);
    assert_int_equal(system(cmd), 0);
    OK(noema_collection_open(&c, NULL, path, NOEMA_COLLECTION_READONLY, &err));
    expect_exactly(c, 10);
    noema_collection_free(c);
    snprintf(cmd, sizeof cmd, "%s/lock", path);
    assert_int_not_equal(access(cmd, F_OK), 0);
    snprintf(cmd, sizeof cmd, "chmod -R u+w %s", path);
    assert_int_equal(system(cmd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_at_any_moment),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_one_writer_many_readers),
        cmocka_unit_test(test_read_only_folder),
    };
    return cmocka_run_group_tests(tests, make_tmp, drop_tmp);
}
