/* The functions that the accelerator calls. */
#include "shim.h"
#include "table.h"

static const vl_table_t table = {
    sizeof(vl_table_t), VL_TABLE_VERSION,  vl_loop_run,     vl_loop_wakeup,
    vl_loop_ring,       vl_loop_slab,      vl_stream_write, vl_loop_may_wait,
    vl_write_may_wait,  vl_udp_send,       vl_stream_announce, vl_stream_receive,
};

int64_t vl_table(void) { return (int64_t) (intptr_t) &table; }
