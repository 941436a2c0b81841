package main

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
)

const masqueraded = `table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 203.0.113.0/24 masquerade
	}
}
`

const tracked = `table inet firewall {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state invalid drop
	}
}
`

// end waits until a connection tells that it is over: it reads or writes, as its program does.
func end(c net.Conn, writes bool) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	tick := time.NewTicker(10 * time.Millisecond) // a stream of 100 KiB a second
	defer tick.Stop()
	for b := make([]byte, 1024); ; {
		var err error
		if writes {
			_, err = c.Write(b)
			<-tick.C
		} else {
			_, err = c.Read(b)
		}
		if err != nil {
			return err
		}
	}
}

// connected loads rules, starts the agent and returns both ends of a connection of the first home to the internet.
func connected(t *testing.T, w *world, rules string) (customer, server net.Conn) {
	t.Helper()
	file := filepath.Join(w.Dir, "rules.nft")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	w.nft(t, "-f", file)
	require.NoError(t, w.StartAgent(t.Context()))
	require.NoError(t, w.Lease(t.Context(), w.Homes[0]))
	ln, err := w.Internet.Listen(miniature.InternetIP + ":7443")
	require.NoError(t, err)
	defer ln.Close()
	type accepted struct {
		conn net.Conn
		err  error
	}
	came := make(chan accepted, 1)
	go func() { c, err := ln.Accept(); came <- accepted{c, err} }()
	customer, err = w.Homes[0].Host.Dial(miniature.InternetIP+":7443", 5*time.Second)
	require.NoError(t, err)
	t.Cleanup(func() { _ = customer.Close() })
	a := <-came
	require.NoError(t, a.err)
	t.Cleanup(func() { _ = a.conn.Close() })
	return customer, a.conn
}

// A connection to a garden goes on at a pause: it may be the payment that ends it.
func TestKernelPauseKeepsAConnectionToAGarden(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]string{"routed": tracked, "masqueraded": masqueraded} {
		t.Run(name, func(t *testing.T) {
			w := startWorld(t, miniature.Options{Homes: 1, Extra: "acl: {pause: {garden: [" + miniature.InternetIP + "]}}\n"})
			customer, server := connected(t, w, rules)
			exchange := func(when string) {
				t.Helper()
				for _, x := range [][2]net.Conn{{customer, server}, {server, customer}} {
					require.NoError(t, x[0].SetDeadline(time.Now().Add(5*time.Second)))
					require.NoError(t, x[1].SetDeadline(time.Now().Add(5*time.Second)))
					_, err := io.WriteString(x[0], "hello")
					require.NoError(t, err, when)
					_, err = io.ReadFull(x[1], make([]byte, 5))
					require.NoError(t, err, when)
				}
			}
			exchange("before")
			_, err := w.Client.SetState(t.Context(), provision.SubscriberID(w.Homes[0].ID), provision.StatePause)
			require.NoError(t, err)
			eventually(t, 10*time.Second, "the pass over his connections is over", func() (bool, error) {
				return regexp.MustCompile(`(?m)^usher_acl_flows_forgotten_total [1-9]`).MatchString(w.metrics(t)), nil
			})
			exchange("paused")
		})
	}
}

// Whoever is paused learns of the end of his connections at once, and so does the
// other end, whichever of them was talking.
func TestKernelPauseTellsBothEnds(t *testing.T) {
	t.Parallel()
	for _, rules := range []string{tracked, masqueraded} {
		for name, writes := range map[string]struct{ customer, server bool }{
			"download": {server: true}, "upload": {customer: true}, "idle": {},
		} {
			title := "routed, " + name
			if rules == masqueraded {
				title = "masqueraded, " + name
			}
			t.Run(title, func(t *testing.T) {
				w := startWorld(t, miniature.Options{Homes: 1})
				customer, server := connected(t, w, rules)
				ends := map[string]chan error{"customer": make(chan error, 1), "server": make(chan error, 1)}
				_, err := io.WriteString(customer, "hello")
				require.NoError(t, err)
				_, err = io.ReadFull(server, make([]byte, 5))
				require.NoError(t, err)
				go func() { ends["customer"] <- end(customer, writes.customer) }()
				go func() { ends["server"] <- end(server, writes.server) }()

				_, err = w.Client.SetState(t.Context(), provision.SubscriberID(w.Homes[0].ID), provision.StatePause)
				require.NoError(t, err)
				for who, ended := range ends {
					err := <-ended
					require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE), "the %s: %v", who, err)
				}
			})
		}
	}
}
