package access

import (
	"net/netip"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var cmpAddr = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

// pass lets time go by and everything settle that became due.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
