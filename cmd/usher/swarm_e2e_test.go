package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/userside/emulator"
)

// swarmSize is how many addresses one host types.
const swarmSize = 160

// swarmAddr is one of them.
func swarmAddr(i int) net.IP { return net.IPv4(198, 18, 5, byte(1+i)) }

// addSwarm puts a host on a wire of the router that has all addresses of 198.18.5.0/24.
func (w *world) addSwarm(t *testing.T) *lab.Host {
	t.Helper()
	host, err := w.Lab.Host("swarm")
	require.NoError(t, err)
	require.NoError(t, w.Lab.Wire(host, "eth0", w.Router, "swarm0"))
	require.NoError(t, w.Router.IP("addr", "add", "198.18.4.1/23", "dev", "swarm0"))
	require.NoError(t, host.IP("addr", "add", "198.18.4.2/23", "dev", "eth0"))
	require.NoError(t, host.IP("route", "add", "default", "via", "198.18.4.1"))
	require.NoError(t, host.IP("route", "add", "local", "198.18.5.0/24", "dev", "lo"))
	return host
}

// storm opens connections from each address of a swarm to each of the listeners, sends a
// request on each and keeps it open, round after round until ctx ends, and closes them all
// then. It returns after the first round.
func storm(ctx context.Context, t *testing.T, host *lab.Host, each int, requests map[string]string) (end func()) {
	t.Helper()
	const workers = 4
	ctx, cancel := context.WithCancel(ctx)
	var all, once sync.WaitGroup
	once.Add(workers)
	for worker := range workers {
		all.Go(func() {
			first := sync.OnceFunc(once.Done)
			defer first()
			_ = host.Do(func() error {
				open := map[string]net.Conn{}
				defer func() {
					for _, c := range open {
						_ = c.Close()
					}
				}()
				for ctx.Err() == nil {
					for n := worker; n < swarmSize*each && ctx.Err() == nil; n += workers {
						for to, request := range requests {
							slot := fmt.Sprint(to, n)
							if old := open[slot]; old != nil {
								_ = old.Close()
								delete(open, slot)
							}
							// One literal address keeps the dial on this thread.
							d := net.Dialer{LocalAddr: &net.TCPAddr{IP: swarmAddr(n % swarmSize)}, Timeout: time.Second, KeepAlive: -1}
							c, err := d.Dial("tcp4", to)
							if err != nil {
								continue // the reset was faster
							}
							_, _ = io.WriteString(c, request)
							open[slot] = c
						}
					}
					first()
				}
				return nil
			})
		})
	}
	once.Wait()
	end = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(end)
	return end
}

// inside returns how many connections a door has.
func (w *world) inside(t *testing.T, door string) int {
	t.Helper()
	for _, d := range w.status(t).Doors {
		if d.Name == door {
			return d.Inside
		}
	}
	t.Fatal("no such door: " + door)
	return 0
}

// A host with as many addresses as it types, of nobody or of its neighbours, gets one share
// of the portal with all of them: a paused customer sees his page whatever it holds.
func TestKernelPortalShares(t *testing.T) {
	labtest.Need(t, "curl")
	t.Parallel()
	for name, tt := range map[string]struct {
		neighbours bool
		most       int
	}{"nobody's addresses": {false, 128}, "addresses of neighbours": {true, 64}} {
		t.Run(name, func(t *testing.T) {
			w := startWorld(t, miniature.Options{Homes: 1, Extra: "portal: {listen: \"10.0.0.1:8080\"}\n",
				Subnets: "    - {prefix: 198.18.4.0/23, gateway: 198.18.4.1, lease_time: 10m}\n"})
			host := w.addSwarm(t)
			for i := range swarmSize {
				if !tt.neighbours {
					break
				}
				_, err := w.ERP.AddCustomer(emulator.Customer{Login: fmt.Sprint("neighbour", i), State: emulator.StateActive,
					Addresses: []emulator.Address{{IP: netip.AddrFrom4([4]byte(swarmAddr(i).To4())), MAC: emulator.MAC{0, 0, 0x5e, 0, 0x54, byte(i)}}}})
				require.NoError(t, err)
			}
			require.NoError(t, w.StartAgent(t.Context()))
			h := w.Homes[0]
			require.NoError(t, w.Lease(t.Context(), h))
			_, err := w.Client.SetState(t.Context(), provision.SubscriberID(h.ID), provision.StatePause)
			require.NoError(t, err)

			began := time.Now()
			end := storm(t.Context(), t, host, 20, map[string]string{"10.0.0.1:8080": "GET / HTTP/1.1\r\n"}) // and never more
			t.Logf("%d connections tried in %s, %d are inside", 20*swarmSize, time.Since(began).Round(time.Millisecond), w.inside(t, "portal"))
			require.LessOrEqual(t, w.inside(t, "portal"), tt.most, "all its addresses have one share")
			a := curl(t, h.Host, "http://any.example.org/", miniature.InternetIP)
			require.NoError(t, a.err)
			require.Equal(t, fmt.Sprint(http.StatusNetworkAuthenticationRequired), a.code)
			require.Contains(t, a.body, "Internet access is paused")
			end()
			require.Contains(t, w.metrics(t), `usher_portal_connections_refused_total{bound="total"} 0`)
			require.False(t, strings.Contains(w.metrics(t), `usher_portal_connections_refused_total{bound="source"} 0`))
		})
	}
}
