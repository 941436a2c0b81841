package link_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/route"
)

// 10,000 host routes installed and removed, by usher and by "ip -batch" of the
// same, each round in an empty table. The metric is routes changed per second.
func BenchmarkKernelRoutes10k(b *testing.B) {
	const n = 10_000
	l := newLab(b)
	h, c := cables(b, l, 1)
	r := openRoutes(b, h)
	var routes []route.Route
	var add, del strings.Builder
	for i := range n {
		rt := route.Route{Addr: netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), Ifindex: c[0], Table: 254}
		routes = append(routes, rt)
		fmt.Fprintf(&add, "route add %s/32 dev c0 proto 207\n", rt.Addr)
		fmt.Fprintf(&del, "route del %s/32 dev c0 proto 207\n", rt.Addr)
	}
	file := func(name, text string) string {
		path := filepath.Join(b.TempDir(), name)
		require.NoError(b, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	perSecond := func(b *testing.B) {
		b.ReportMetric(2*n*float64(b.N)/b.Elapsed().Seconds(), "routes/s")
		have, err := r.Routes(b.Context())
		require.NoError(b, err)
		require.Empty(b, have)
	}
	b.Run("usher", func(b *testing.B) {
		for b.Loop() {
			for _, want := range [][]route.Route{routes, nil} {
				have, err := r.Routes(b.Context())
				require.NoError(b, err)
				changes := route.Plan(want, have)
				require.Len(b, changes, n)
				apply(b, r, changes...)
			}
		}
		perSecond(b)
	})
	b.Run("ip-batch", func(b *testing.B) {
		addFile, delFile := file("add", add.String()), file("del", del.String())
		for b.Loop() {
			for _, f := range []string{addFile, delFile} {
				_, err := h.Output(b.Context(), "ip", "-batch", f)
				require.NoError(b, err)
			}
		}
		perSecond(b)
	})
}
