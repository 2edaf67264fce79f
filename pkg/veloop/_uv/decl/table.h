/* The accelerator's way in. It is an extension module of its own and must not link libuv a second
 * time, so it is given the address of a table of functions, a const vl_table_t (shim/table.h). */
int64_t vl_table(void);
