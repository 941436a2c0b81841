// Package huge makes tables that are too large for the processor's cache of addresses, and are looked at in no order.
package huge

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	page = 2 << 20 // of the kernel's huge pages, on the machines that we know; another size costs only time
	// least is from where on a table is worth them.
	least = 2 * page
)

// Make returns n zeros. For a large table the kernel is asked for huge pages: with small ones nearly every look misses the cache
// of addresses, and the first look at each page waits for the page.
func Make[T any](n int) []T {
	s := make([]T, n)
	if b := whole(s); len(b) > 0 {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // where that is not possible it is only slower
	}
	return s
}

// MakeReady is Make of a table that is written soon, whole: its memory is there on return.
func MakeReady[T any](n int) []T {
	s := Make[T](n)
	if b := whole(s); len(b) > 0 {
		_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) // kernels before 5.14 cannot: the memory comes as it is written
	}
	return s
}

// whole returns the bytes of the huge pages that lie in a table; none if it is not worth it.
func whole[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	size := uintptr(len(s)) * unsafe.Sizeof(s[0])
	if size < least {
		return nil
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), size)
	skip := -uintptr(unsafe.Pointer(&s[0])) & (page - 1)
	return b[skip : skip+(size-skip)&^(page-1)]
}
