/* text.h - bytes as text: a growing buffer, hexadecimal, base64, JSON strings, and the escapes of `shale
 * scan`. */
#ifndef TOOLS_TEXT_H
#define TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* A growing buffer; zero-valid. Running out of memory ends the program with status 71. */
struct text {
    unsigned char *data;
    size_t size, cap;
};
void text_release(struct text *t);
void text_reserve(struct text *t, size_t more);
void text_append(struct text *t, const void *data, size_t size);
void text_string(struct text *t, const char *s);

/* Appends the bytes that the hexadecimal digits stand for; false, and nothing appended: an odd number, or not
 * a digit. */
bool text_unhex(struct text *t, const char *digits, size_t size);
void text_hex(struct text *t, const void *data, size_t size);
/* The value of a hexadecimal digit, or -1. */
int text_digit(int c);

/* A JSON string, or the object {"b64": "..."} where the bytes are not UTF-8. */
void text_json(struct text *t, const void *data, size_t size);
/* As `shale scan` prints it: UTF-8 as it is; \t \n \r \\ and \xHH for control characters and for bytes that
 * are not UTF-8. One record is thus one line, and a terminal sees no control sequence. */
void text_escape(struct text *t, const void *data, size_t size);

#endif
