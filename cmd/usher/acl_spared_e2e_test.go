package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/userside/emulator"
)

// Rows of a blocked customer with the addresses that everybody needs take them from nobody, and every view names them.
func TestKernelRowsOfWhatOthersNeedBlockNobody(t *testing.T) {
	labtest.Need(t, "dnsmasq")
	t.Parallel()
	const erpIP, dhcpServer, bystander, router = "203.0.113.30", "203.0.113.67", "203.0.113.40", "203.0.113.1"
	w := startWorld(t, miniature.Options{Homes: 2, Extra: "acl: {pause: {garden: [" + siteByAddr + "]}, dhcp_servers: [" + dhcpServer + "]}\n"})
	w.startSites(t) // the name server that DHCP tells is siteAny
	for _, a := range []string{erpIP, dhcpServer, bystander} {
		require.NoError(t, w.Internet.IP("addr", "add", a+"/24", "dev", "eth0"))
		ln, err := w.Internet.Listen(a + ":8480")
		require.NoError(t, err)
		w.Serve(ln, http.HandlerFunc(w.ERP.ServeHTTP))
	}
	config, err := os.ReadFile(w.ConfigPath())
	require.NoError(t, err)
	away := bytes.Replace(config, []byte("url: http://127.0.0.1:8480/"), []byte("url: http://"+erpIP+":8480/"), 1)
	require.NotEqual(t, config, away)
	require.NoError(t, os.WriteFile(w.ConfigPath(), away, 0o600))

	needed := []struct {
		ip  string
		why access.Spared
	}{
		{router, access.SparedOwn}, {siteAny, access.SparedResolver}, {siteByAddr, access.SparedGarden}, {erpIP, access.SparedERP}, {dhcpServer, access.SparedDHCPServer},
	}
	rows := []emulator.Address{{IP: netip.MustParseAddr(bystander)}, // nobody needs it: it is blocked
		{IP: netip.MustParseAddr(miniature.GatewayIP)}} // no address of a customer at all: a defect of the ERP's data
	for _, n := range needed {
		rows = append(rows, emulator.Address{IP: netip.MustParseAddr(n.ip)})
	}
	id, err := w.ERP.AddCustomer(emulator.Customer{Login: "mistake", FullName: "mistake", State: emulator.StateActive, Addresses: rows})
	require.NoError(t, err)
	mistake := miniature.Home{ID: id}
	require.NoError(t, w.StartAgent(t.Context()))
	paused, other := w.Homes[0], w.Homes[1]
	require.NoError(t, w.Lease(t.Context(), paused))
	w.setState(t, paused, provision.StatePause)
	require.Equal(t, "refused", tcp(paused.Host, miniature.EchoAddr))
	require.Equal(t, 1, w.inSet(t, "paused"))

	for _, st := range []provision.State{provision.StatePause, provision.StateStop} {
		t.Run(st.String(), func(t *testing.T) {
			w.setState(t, mistake, st)
			what := map[provision.State]string{provision.StatePause: "paused", provision.StateStop: "stopped"}[st]
			inSet := w.nft(t, "list", "set", "inet", "usher", what)
			require.Contains(t, inSet, bystander)
			elements := strings.Fields(strings.ReplaceAll(inSet, ",", " "))
			for _, n := range needed {
				require.NotContains(t, elements, n.ip)
			}
			require.NotContains(t, elements, miniature.GatewayIP)
			require.Equal(t, 1, w.status(t).Sync.Problems[provision.ProblemReservedAddress], "the gateway")
			require.NoError(t, w.Lease(t.Context(), other), "his relay is the gateway, his lease names the name server")
			require.Equal(t, map[provision.State]string{provision.StatePause: "refused", provision.StateStop: "silence"}[st], tcp(other.Host, bystander+":8480"), "the state has come through")
			for who, h := range map[string]miniature.Home{"another customer": other, "a paused one": paused} {
				found, err := lookupFrom(t.Context(), h.Host, payName)
				require.NoError(t, err, "%s asks the name server", who)
				require.Equal(t, siteByName, found[0].String())
				require.Equal(t, "ok", tcp(h.Host, siteByAddr+":80"), "%s reaches the garden", who)
				require.True(t, ping(t, h.Host, h.IP.String(), router), "%s reaches the router", who)
			}
			require.True(t, reaches(other.Host))
			require.Equal(t, "ok", tcp(other.Host, siteAny+":443"), "another customer reaches the internet")
			require.Equal(t, "ok", tcp(other.Host, erpIP+":8480"), "and the ERP")
			require.Equal(t, "ok", tcp(other.Host, dhcpServer+":8480"), "and the DHCP server")
			require.Equal(t, "refused", tcp(paused.Host, erpIP+":8480"), "which is no garden")
			require.True(t, ping(t, w.Internet, siteAny, miniature.GatewayIP), "the gateway is reached from beyond the router")
			before := w.status(t).Sync.FetchedAt
			eventually(t, 10*time.Second, "the agent reads the ERP", func() (bool, error) { return w.status(t).Sync.FetchedAt.After(before), nil })
			require.Zero(t, w.status(t).Sync.ConsecutiveFailures)

			list := w.status(t).ACL.WithheldList
			require.Len(t, list, len(needed))
			out, code := w.usherOn(t, "explain", fmt.Sprint(id))
			require.Zero(t, code, out)
			explained := strings.Join(strings.Fields(out), " ")
			metrics := w.metrics(t)
			for _, n := range needed {
				want := access.Withheld{IP: netip.MustParseAddr(n.ip), Subscriber: provision.SubscriberID(id), Set: what, Why: n.why}
				require.True(t, slices.Contains(list, want), "%v in %v", want, list)
				require.Contains(t, explained, fmt.Sprintf("Attention: customer %d is %s, but %s is not blocked: it is %s. Correct it in the ERP.", id, what, n.ip, n.why))
				require.Contains(t, metrics, fmt.Sprintf("usher_acl_withheld_addresses{why=%q} 1\n", string(n.why)))
				out, code := w.usherOn(t, "acl", "show", n.ip)
				require.Zero(t, code, out)
				require.Contains(t, out, "wanted open, in the kernel open")
				require.Contains(t, out, fmt.Sprintf("why: customer %d is %s, but it is %s, which is never blocked", id, what, n.why))
			}
			out, code = w.usherOn(t, "status", "--output", "table")
			require.Zero(t, code, out)
			for _, x := range list[:3] {
				require.Contains(t, out, x.Text())
			}
			require.Contains(t, out, "and 2 more that are never blocked")
			require.Regexp(t, `problems +.*1 reserved_address`, out)
			out, code = w.usherOn(t, "acl", "show")
			require.Zero(t, code, out)
			require.Regexp(t, `past a block +from_paused dns: [1-9][0-9]* packets, [1-9][0-9]* bytes\n +from_paused garden: [1-9]`, out, "what the paused one did")
			out, code = w.usherOn(t, "acl", "verify")
			require.Zero(t, code, out)
		})
	}
	require.NoError(t, w.ERP.SetState(id, emulator.StateActive))
	eventually(t, 10*time.Second, "nothing is withheld", func() (bool, error) { return len(w.status(t).ACL.WithheldList) == 0, nil })
	require.Contains(t, w.metrics(t), `usher_acl_withheld_addresses{why="resolver"} 0`)
	eventually(t, 5*time.Second, "the row is blocked no more", func() (bool, error) { return tcp(other.Host, bystander+":8480") == "ok", nil })
}
