package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/userside/emulator"
)

// Somebody gives a customer's address to a new router in the ERP while the old one's lease is live. Real clients: by MAC alone the old one
// is refused after the next whole fetch, and the new one gets the address. The ERP keeps what was written.
func TestKernelOperatorsWordByMAC(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "dhclient")
	w := startWorld(t, miniature.Options{Homes: 2, Times: shortTimes("2s", "4s"), DHCP: "  match: [mac]\n"})
	old, fresh := w.setMAC(t, 0, 0x18), w.setMAC(t, 1, 0xfe)
	ip := old.IP
	require.NoError(t, w.ERP.SetIPMAC(ip, emulatorMAC(t, old.MAC)))
	require.NoError(t, w.StartAgent(t.Context()))
	p := w.dhclient(t, old.Host)
	logged(t, p, "bound to "+ip.String(), 2) // it renews
	n := w.dhclient(t, fresh.Host)
	w.refused(t, fresh.MAC, "unknown_client")

	began := time.Now()
	out, err := w.Router.Output(t.Context(), w.Program, "customer", "set-mac-by-ip", "--config", w.ConfigPath(), "--ip", ip.String(), "--mac", fresh.MAC)
	require.NoError(t, err, out)
	logged(t, n, "bound to "+ip.String(), 1)
	t.Logf("the new router had the address %v after the change in the ERP", time.Since(began))
	logged(t, p, "DHCPNAK", 1) // at T2, through the relay: past it no NAK arrives
	t.Logf("the old one knew %v after it", time.Since(began))
	p.Kill()
	logged(t, n, "bound to "+ip.String(), 3) // some renewals on nothing set the ERP back
	require.Equal(t, fresh.MAC, erpMAC(w.ERP, ip))
	require.Equal(t, 1, w.ERP.Calls()["customer.set_mac_by_ip"], "that of the operator")
}

// On a line that the relay's option 82 vouches for a typing error cuts nobody off, and is not overwritten; the router that has the new MAC takes over
// there.
func TestKernelOperatorsWordOnALine(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "dhclient")
	w := startWorld(t, miniature.Options{Homes: 1, Times: shortTimes("2s", "4s")})
	h := w.setMAC(t, 0, 0x18)
	require.NoError(t, w.ERP.SetIPMAC(h.IP, emulatorMAC(t, h.MAC)))
	require.NoError(t, w.StartAgent(t.Context()))
	p := w.dhclient(t, h.Host)
	logged(t, p, "bound to "+h.IP.String(), 1)
	typo := "00:00:5e:00:53:ef"
	require.NoError(t, w.ERP.SetIPMAC(h.IP, emulatorMAC(t, typo)))
	eventually(t, 10*time.Second, "the agent says that the ERP's MAC is newer", func() (bool, error) {
		x, err := w.Client.Explain(t.Context(), h.IP.String())
		return err == nil && strings.Contains(x.Summary, typo+" for "+h.IP.String()+", which is newer than the lease of "+h.MAC) && strings.Contains(x.Summary, "is answered on its line"), err
	})
	began := time.Now()
	w.sees(t, "a renewal past the relay", h.IP, func(e console.EventView) bool { return renewedPastRelay(e) && e.Time.After(began) })
	w.sees(t, "another", h.IP, func(e console.EventView) bool { return renewedPastRelay(e) && e.Time.After(began.Add(2*time.Second)) })
	require.NotContains(t, p.Log(), "DHCPNAK")
	require.Equal(t, typo, erpMAC(w.ERP, h.IP))
	p.Kill()

	h = w.setMAC(t, 0, 0xef)
	n, err := w.DHCPClient(h)
	require.NoError(t, err)
	logged(t, n, "bound ip="+h.IP.String(), 1)
	require.Equal(t, typo, erpMAC(w.ERP, h.IP))
}

func emulatorMAC(t *testing.T, s string) (m emulator.MAC) {
	t.Helper()
	m, err := emulator.ParseMAC(s)
	require.NoError(t, err)
	return m
}

// refused waits until the packets of a client end so.
func (w *world) refused(t *testing.T, mac, outcome string) {
	t.Helper()
	eventually(t, 10*time.Second, mac+" ends in "+outcome, func() (bool, error) {
		x, err := w.Client.Explain(t.Context(), mac)
		return err == nil && len(x.Events) > 0 && x.Events[0].Outcome == outcome, err
	})
}
