/* Opaque types: Python holds pointers to them and never looks inside. */
typedef struct vl_loop vl_loop_t;
typedef struct vl_handle vl_handle_t;
typedef struct vl_dns vl_dns_t;
