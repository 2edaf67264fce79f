/* Names and texts of status codes, and one status of our own. */

/* The call came from a thread other than the one that runs the loop, or from a forked child. */
enum { VL_EFOREIGN = -30001 };

const char *uv_err_name(int status);
const char *uv_strerror(int status);
const char *uv_version_string(void);
