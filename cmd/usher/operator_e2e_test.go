package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/console/consoletest"
	"github.com/usher-agent/usher/provision/link/lab"
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

// As the one before, for each command that writes a MAC, with fetches so rare that only a hint can bring it: before it the old router is answered
// and the new one is not, after it the old one is refused and the new one has the address.
func TestKernelOperatorsWordComesByHint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(customer, ip, mac string) [][]string
	}{
		{"set-mac-by-ip", func(_, ip, mac string) [][]string { return [][]string{{"set-mac-by-ip", "--ip", ip, "--mac", mac}} }},
		{"ip-add", func(customer, ip, mac string) [][]string {
			return [][]string{{"ip-delete", "--customer-id", customer, "--value", ip}, {"ip-add", "--customer-id", customer, "--value", ip, "--mac", mac}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			labtest.Need(t, "dhclient")
			secret := filepath.Join(t.TempDir(), "secret")
			require.NoError(t, os.WriteFile(secret, []byte(testHookSecret), 0o600))
			w := startWorld(t, miniature.Options{Homes: 2, Times: shortTimes("2s", "4s"), DHCP: "  match: [mac]\n", Refresh: 10 * time.Minute,
				Extra: "hooks: {listen: 127.0.0.1:9468, secret_file: " + secret + "}\n"})
			old, fresh := w.setMAC(t, 0, 0x18), w.setMAC(t, 1, 0xfe)
			ip := old.IP
			require.NoError(t, w.ERP.SetIPMAC(ip, emulatorMAC(t, old.MAC)))
			require.NoError(t, w.StartAgent(t.Context()))
			p := w.dhclient(t, old.Host)
			logged(t, p, "bound to "+ip.String(), 1)
			n := w.dhclient(t, fresh.Host)
			w.refused(t, fresh.MAC, "unknown_client")

			for _, args := range c.do(strconv.FormatInt(old.ID, 10), ip.String(), fresh.MAC) {
				out, err := w.Router.Output(t.Context(), w.Program, append([]string{"customer"}, append(args, "--config", w.ConfigPath())...)...)
				require.NoError(t, err, out)
			}
			require.Equal(t, fresh.MAC, erpMAC(w.ERP, ip))
			logged(t, p, "bound to "+ip.String(), strings.Count(p.Log(), "bound to "+ip.String())+2) // polls bring nothing of it
			require.NotContains(t, p.Log(), "DHCPNAK")
			require.NotContains(t, n.Log(), "bound to ")

			began := time.Now()
			consoletest.SendHint(t, w.hookClient(t), "http://127.0.0.1:9468", testHookSecret, old.ID, 1)
			logged(t, p, "DHCPNAK", 1)
			t.Logf("the old router knew %v after the hint", time.Since(began))
			logged(t, n, "bound to "+ip.String(), 1)
			o := w.outcomes(t)
			require.Positive(t, o["nak_overruled"]+o["nak_other_client"], "by what the new one has, if that was quicker: %v", o)
			p.Kill()
			logged(t, n, "bound to "+ip.String(), 3) // some renewals on nothing set the ERP back
			require.Equal(t, fresh.MAC, erpMAC(w.ERP, ip))
			require.Equal(t, fresh.MAC, w.leasedTo(t, ip).String())
			require.Equal(t, len(c.do("", "", "")), w.ERP.Calls()["customer.set_mac_by_ip"]+w.ERP.Calls()["customer.ip_delete"]+w.ERP.Calls()["customer.ip_add"], "those of the operator")
		})
	}
}

// waitingReport makes a world in which a new router took a line over and was acknowledged while the ERP does not take its MAC: so a report waits.
// The router renews every two seconds.
func waitingReport(t *testing.T, fault emulator.Fault) (w *world, h miniature.Home, router *lab.Process, oldMAC string) {
	t.Helper()
	w = startWorld(t, miniature.Options{Homes: 1})
	h = w.setMAC(t, 0, 0x18)
	oldMAC = h.MAC
	require.NoError(t, w.ERP.SetIPMAC(h.IP, emulatorMAC(t, oldMAC)))
	require.NoError(t, w.StartAgent(t.Context()))
	p, err := w.DHCPClient(h)
	require.NoError(t, err)
	require.Equal(t, h.IP, boundTo(t, p, 1))
	p.Kill()

	require.NoError(t, w.ERP.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{"customer.set_mac_by_ip": fault}}))
	h = w.setMAC(t, 0, 0xfe)
	router, err = w.DHCPClient(h)
	require.NoError(t, err)
	require.Equal(t, h.IP, boundTo(t, router, 1))
	eventually(t, 10*time.Second, "its report waits, on the disk", func() (bool, error) {
		o := w.status(t).Outbox
		return o.Failed > 0 && o.Depth == 1 && o.Unwritten == 0, nil
	})
	require.Equal(t, oldMAC, erpMAC(w.ERP, h.IP))
	return w, h, router, oldMAC
}

// waitingReports are ways in which a report comes to wait, and whether the agent is killed meanwhile.
var waitingReports = []struct {
	name   string
	fault  emulator.Fault
	killed bool
}{
	{"an error", emulator.FaultError, false},
	{"a refusal", emulator.FaultForbidden, false},
	{"killed meanwhile", emulator.FaultError, true},
}

// A report that waited while the ERP did not take it is not sent if somebody wrote a third MAC meanwhile, not by an agent that was killed and begins anew
// either; whoever looks is told.
func TestKernelWaitingReportYieldsToAThirdMAC(t *testing.T) {
	t.Parallel()
	for _, c := range waitingReports {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, h, router, _ := waitingReport(t, c.fault)
			const third = "00:00:5e:00:53:33"
			require.NoError(t, w.ERP.SetIPMAC(h.IP, emulatorMAC(t, third)))
			if c.killed {
				<-w.agentGone()
			}
			require.NoError(t, w.ERP.SetQuirks(emulator.Quirks{}))
			if c.killed {
				require.NoError(t, w.StartAgent(t.Context()))
			}

			eventually(t, 20*time.Second, "the report is dropped", func() (bool, error) {
				o := w.status(t).Outbox
				return o.Overruled == 1 && o.Depth == 0, nil
			})
			for range 2 {
				renews(t, router, h.IP) // which reports nothing, and on its line it is answered all the same
			}
			o := w.status(t).Outbox
			require.Zero(t, o.Depth)
			require.EqualValues(t, 1, o.Overruled)
			require.Zero(t, o.Sent)
			require.Len(t, o.OverruledList, 1)
			require.Equal(t, h.IP, o.OverruledList[0].IP)
			require.Equal(t, h.MAC, o.OverruledList[0].MAC.String())
			require.Equal(t, third, o.OverruledList[0].Has.String())
			require.Equal(t, third, erpMAC(w.ERP, h.IP))
			require.Zero(t, w.ERP.Calls()["customer.set_mac_by_ip"], "it took none")
			require.Contains(t, w.metrics(t), `usher_outbox_results_total{result="overruled"} 1`+"\n")
			out, code := w.usherOn(t, "status")
			require.Zero(t, code, out)
			require.Contains(t, out, "1 dropped, for the ERP has got another MAC since the client got the address")
			require.Contains(t, out, "dropped "+h.IP.String()+" "+h.MAC+": the ERP has "+third)
			require.Contains(t, out, "The ERP got the MAC "+third+" for "+h.IP.String())
			require.Equal(t, h.MAC, w.leasedTo(t, h.IP).String())
		})
	}
}

// If nobody wrote anything meanwhile the report arrives.
func TestKernelWaitingReportArrives(t *testing.T) {
	t.Parallel()
	for _, c := range waitingReports {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, h, _, oldMAC := waitingReport(t, c.fault)
			if c.killed {
				<-w.agentGone()
			}
			require.Equal(t, oldMAC, erpMAC(w.ERP, h.IP))
			require.NoError(t, w.ERP.SetQuirks(emulator.Quirks{}))
			if c.killed {
				require.NoError(t, w.StartAgent(t.Context()))
			}
			eventually(t, 20*time.Second, "the ERP has the new router's MAC", func() (bool, error) { return erpMAC(w.ERP, h.IP) == h.MAC, nil })
			eventually(t, 10*time.Second, "the report is done", func() (bool, error) {
				o := w.status(t).Outbox
				return o.Sent == 1 && o.Depth == 0, nil
			})
			require.Zero(t, w.status(t).Outbox.Overruled)
			require.Contains(t, w.metrics(t), `usher_outbox_results_total{result="overruled"} 0`+"\n")
			require.Equal(t, h.MAC, erpMAC(w.ERP, h.IP))
		})
	}
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
