package acl_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// stoppedNets returns changes of stopped subnets, of one length.
func stoppedNets(tb testing.TB, op provision.Op, bits, from, n int) (out []access.Change) {
	tb.Helper()
	set := access.SetStopped.Subnets(bits)
	for i := range n {
		at := uint32(10<<24) + uint32(from+i)<<(32-bits)
		e, err := set.Element(access.Fields{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)}), bits)})
		require.NoError(tb, err)
		out = append(out, access.Change{Op: op, Element: e})
	}
	return out
}

// One change of a subnet among 100,000, as that of an address among as many.
func BenchmarkKernelOneMoreSubnetTo100k(b *testing.B) {
	for _, tt := range []struct {
		name string
		bits int
	}{{"of a length in use", 29}, {"of a new length", 30}} {
		b.Run(tt.name, func(b *testing.B) {
			table := newRouter(b).open()
			observe(b, table)
			apply(b, table, stoppedNets(b, provision.OpAdd, 29, 0, 100_000))
			one, none := stoppedNets(b, provision.OpAdd, tt.bits, 500_000, 1), stoppedNets(b, provision.OpRemove, tt.bits, 500_000, 1)
			var times []time.Duration
			for b.Loop() {
				began := time.Now()
				apply(b, table, one)
				times = append(times, time.Since(began))
				b.StopTimer()
				apply(b, table, none)
				if tt.bits != 29 {
					observe(b, table) // which drops the set
				}
				b.StartTimer()
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Nanoseconds()), "median-ns")
		})
	}
}
