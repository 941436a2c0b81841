package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// tellingScript prints everything that udhcpc was told.
const tellingScript = miniature.UDHCPCScript + `[ "$1" != bound ] || { env | grep -E '^(search|staticroutes|msstaticroutes|mtu|siaddr|sname|boot_file|opt[0-9]+|ntpsrv)=' | sed 's/^/told /'; echo told all; }
`

// Options on their way through a relay into real clients: compressed names, routes,
// a class's boot file, more than fits without overload, and a lease in two packets.
func TestKernelPeersOptions(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "dhcpcd", "unshare")
	w := startWorld(t, miniature.Options{
		Homes: 3,
		Times: `lease_time: 10m
      search: [eng.example.net, sales.example.net]
      routes: [{to: 192.0.2.0/24, via: 198.51.100.1}, {to: 203.0.113.128/25, via: 0.0.0.0}]
      mtu: 1492
      options:
        - {code: 224, type: string, value: "` + strings.Repeat("a", 200) + `"}
        - {code: 225, type: string, value: "` + strings.Repeat("b", 100) + `"}
        - {code: 226, type: string, value: "` + strings.Repeat("c", 50) + `"}`,
		Subnets: `  rapid_commit: true
  classes:
    - name: stb
      match: {vendor_class: "stb-*"}
      boot_file: stb.img
      server_name: boot
      next_server: 203.0.113.80
      ntp: [203.0.113.123]
`,
	})
	require.NoError(t, w.StartAgent(t.Context()))
	udhcpc := func(t *testing.T, i int, mac byte, golden string, args ...string) string {
		h := w.setMAC(t, i, mac)
		c := w.watchHome(t, h)
		script := w.file(t, h.Host, "telling.sh", tellingScript)
		p, err := h.Host.Start("udhcpc", append([]string{"-f", "-i", "eth0", "-s", script, "-t", "10", "-T", "1"}, args...)...)
		require.NoError(t, err)
		logged(t, p, "told all", 1)
		p.Kill()
		c.golden(t, golden)
		return p.Log()
	}
	t.Run("class", func(t *testing.T) {
		log := udhcpc(t, 0, 0x11, "class", "-V", "stb-4k", "-O", "search", "-O", "staticroutes", "-O", "msstaticroutes", "-O", "mtu", "-O", "ntpsrv")
		for _, want := range []string{
			"told search=eng.example.net sales.example.net", "told mtu=1492", "told ntpsrv=203.0.113.123",
			"told staticroutes=192.0.2.0/24 198.51.100.1 203.0.113.128/25 0.0.0.0 0.0.0.0/0 198.51.100.1",
			"told msstaticroutes=192.0.2.0/24", "told siaddr=203.0.113.80", "told boot_file=stb.img", "told sname=boot",
		} {
			require.Contains(t, log, want)
		}
	})
	t.Run("overload", func(t *testing.T) {
		log := udhcpc(t, 1, 0x12, "overload", "-O", "224", "-O", "225", "-O", "226")
		for _, want := range []string{"told opt224=" + strings.Repeat("61", 200), "told opt225=" + strings.Repeat("62", 100), "told opt226=" + strings.Repeat("63", 50)} {
			require.Contains(t, log, want)
		}
		require.NotContains(t, log, "told boot_file=")
	})
	t.Run("rapid commit", func(t *testing.T) {
		h := w.setMAC(t, 2, 0x13)
		c := w.watchHome(t, h)
		conf := w.file(t, h.Host, "dhcpcd.conf", dhcpcdConf+"option rapid_commit\n")
		p, err := h.Host.Start("unshare", "--mount", "--propagation", "private", w.file(t, h.Host, "dhcpcd.sh", dhcpcdScript), filepath.Dir(conf))
		require.NoError(t, err)
		logged(t, p, "leased "+h.IP.String(), 1)
		p.Kill()
		w.sees(t, "an ACK for a DISCOVER", h.IP, func(e console.EventView) bool { return e.Type == "discover" && acknowledged(e) })
		x, err := w.Client.Explain(t.Context(), h.IP.String())
		require.NoError(t, err)
		require.Len(t, x.Events, 1, "no REQUEST was needed")
		w.leaseState(t, h.IP, "bound")
		c.golden(t, "rapid-commit")
	})
}
