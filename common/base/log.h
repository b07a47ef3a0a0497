/*
 * log: one event, one line: `2026-01-31T10:00:00.123Z info task.done job=... task=... wall_ms=812`.
 * error: a person must act. warn: healed itself. info: once per task or rarer. debug: per message.
 * No payload text, no keys. Control characters and non-ASCII bytes in values are escaped. Thread-safe.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(
    enum log_level level); /* default LOG_INFO; STEER_LOG=debug|info|warn|error sets it too */
/* event: dotted name, a literal. fmt: "key=%s key=%d", may be "". Writes to stderr. */
void log_event(enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(event, ...) log_event(LOG_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...) log_event(LOG_INFO, event, __VA_ARGS__)
#define log_warn(event, ...) log_event(LOG_WARN, event, __VA_ARGS__)
#define log_error(event, ...) log_event(LOG_ERROR, event, __VA_ARGS__)

#endif
