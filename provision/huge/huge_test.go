package huge

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestMakeReturnsZeros(t *testing.T) {
	for i, n := range []int{0, 1, least/8 - 1, least / 8, 3*page/8 + 5, least / 8, 3*page/8 + 5} {
		s := Make[uint64](n)
		if i >= 5 {
			s = MakeReady[uint64](n)
		}
		require.Len(t, s, n)
		b := whole(s)
		if n < least/8 {
			require.Empty(t, b)
		} else {
			require.NotEmpty(t, b)
			require.Zero(t, len(b)%page)
			require.Zero(t, uintptr(unsafe.Pointer(&b[0]))%page)
			require.GreaterOrEqual(t, uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&s[0])))
			require.LessOrEqual(t, uintptr(unsafe.Pointer(&b[0]))+uintptr(len(b)), uintptr(unsafe.Pointer(&s[0]))+8*uintptr(n))
		}
		for i := range s {
			if s[i] != 0 {
				t.Fatalf("%d is not zero", i)
			}
			s[i] = 1 // it can be written to
		}
	}
}
