/* slow.h - sanitizers make everything several times slower, and see in a part of many like cases what they
 * can see: such tests take one case in TEST_SLOW. */
#ifndef TESTS_LIB_SLOW_H
#define TESTS_LIB_SLOW_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_SLOW 5
#else
#define TEST_SLOW 1
#endif

#endif
