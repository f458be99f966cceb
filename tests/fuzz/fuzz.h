/* fuzz.h - what the fuzzers share: a demand that ends the program, bytes taken one decision at a time, a
 * directory of the program's own, and the main function of builds without libFuzzer.
 *
 * libFuzzer watches what is compared and writes it into its inputs: a fuzzer may never assert that a
 * checksum, stored in bytes that came from the input, does not fit.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define fuzz_must(c)                                                                                         \
    do {                                                                                                     \
        if (BASE_UNLIKELY(!(c))) {                                                                           \
            (void)fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #c, shale_errmsg());       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* The input, from front to back; zeros when it is used up. */
struct fuzz_input {
    const uint8_t *at, *end;
};
static inline size_t fuzz_left(const struct fuzz_input *in)
{
    return (size_t)(in->end - in->at);
}
static inline uint32_t fuzz_byte(struct fuzz_input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}
/* Below n, from as many bytes as n needs. */
static inline uint32_t fuzz_below(struct fuzz_input *in, uint32_t n)
{
    uint32_t v = fuzz_byte(in);
    for (uint32_t m = n - 1; m > 255; m >>= 8) {
        v = v << 8 | fuzz_byte(in);
    }
    return v % n;
}
/* At most n bytes; never NULL. */
static inline struct slice fuzz_bytes(struct fuzz_input *in, size_t n)
{
    n = n < fuzz_left(in) ? n : fuzz_left(in);
    struct slice s = slice_make(n != 0 ? (const void *)in->at : "", n);
    in->at += n;
    return s;
}

/* A directory under $TMPDIR, else in memory; removed at the program's end, with everything in it. */
const char *fuzz_dir(void);
int fuzz_dirfd(void);

#endif
