package provision

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
)

// BoundIn gives the bound addresses from first to last, ascending. It costs no
// more than there are of them.
func (s *Snapshot) BoundIn(first, last netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if s == nil || !first.Is4() || !last.Is4() {
			return
		}
		keys, end := s.t.byIP.keys, ipKey(last)
		i, _ := slices.BinarySearch(keys, ipKey(first))
		for ; i < len(keys) && keys[i] <= end; i++ {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], keys[i])
			if !yield(netip.AddrFrom4(b)) {
				return
			}
		}
	}
}
