/* fuzz.c - see fuzz.h. */
#include "fuzz.h"

#include "../lib/scratch.h"
#include "os/os.h"

static char dir[PATH_MAX];

static void remove_dir(void)
{
    (void)scratch_remove(dir);
}

const char *fuzz_dir(void)
{
    if (dir[0] == '\0') {
        const char *tmp = getenv("TMPDIR");
        const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        (void)snprintf(dir, sizeof dir, "%s/shale-fuzz-XXXXXX", tmp != NULL ? tmp : memory);
        fuzz_must(mkdtemp(dir) != NULL && atexit(remove_dir) == 0);
    }
    return dir;
}

int fuzz_dirfd(void)
{
    static int fd = -1;
    if (fd < 0) {
        fuzz_must(os_open_dir(fuzz_dir(), &fd) == SHALE_OK);
    }
    return fd;
}

#ifdef FUZZ_MAIN
/* A copy that ends where the input ends, so that a sanitizer sees a read beyond. */
static void replay(const char *folder, const char *name)
{
    unsigned char *bytes;
    size_t size;
    if (scratch_read(folder, name, &bytes, &size) != 0) {
        perror(name);
        exit(EXIT_FAILURE);
    }
    uint8_t *input = malloc(size);
    fuzz_must(input != NULL || size == 0);
    if (size != 0) {
        memcpy(input, bytes, size);
    }
    free(bytes);
    (void)LLVMFuzzerTestOneInput(input, size);
    free(input);
}

/* Replays the files that it is given; without any, the corpus of the source tree, as a test that counts as
 * one. */
int main(int argc, char **argv)
{
    char folder[PATH_MAX];
    const char *tree = getenv("abs_top_srcdir"), *slash = strrchr(argv[0], '/');
    const char *program = slash != NULL ? slash + 1 : argv[0];
    for (int i = 1; i < argc; i++) {
        replay(argv[i][0] == '/' ? "/" : ".", argv[i]);
    }
    if (argc > 1) {
        return EXIT_SUCCESS;
    }
    (void)snprintf(folder, sizeof folder, "%s/tests/fuzz/corpus/%s", tree != NULL ? tree : ".", program);
    char **names = scratch_names(folder, "");
    size_t n = 0;
    for (; names[n] != NULL; n++) {
        replay(folder, names[n]);
    }
    scratch_names_free(names);
    (void)printf("%s %s: %zu inputs replayed\n", n != 0 ? "ok" : "not ok", program, n);
    return n != 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
#endif
