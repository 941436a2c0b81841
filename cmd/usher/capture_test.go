package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/provision/link/lab"
)

var update = flag.Bool("update", false, "write the golden files of testdata instead of comparing")

// capture is what was said on some wires of a world, for a golden file.
type capture struct {
	wires []*wire
}

type wire struct {
	name    string
	tap     *probe.Tap
	mac     string // only messages of this client; empty: all
	packets []probe.Packet
}

// watch captures DHCP on an interface until the test ends. With a MAC only the
// messages about that client count.
func (c *capture) watch(t *testing.T, name string, h *lab.Host, iface, mac string) {
	t.Helper()
	x := &wire{name: name, mac: mac}
	require.NoError(t, h.Do(func() (err error) {
		x.tap, err = probe.OpenTap(iface)
		return err
	}))
	t.Cleanup(func() { _ = x.tap.Close() })
	c.wires = append(c.wires, x)
}

// watchHome captures at a customer and, of its messages, between relay and router.
func (w *world) watchHome(t *testing.T, h miniature.Home) *capture {
	t.Helper()
	c := &capture{}
	c.watch(t, "at the customer", h.Host, "eth0", h.MAC)
	c.watch(t, "at the router", w.Router, "access", h.MAC)
	return c
}

// drain takes what waits in the kernel.
func (c *capture) drain(t *testing.T) {
	t.Helper()
	for _, x := range c.wires {
		for {
			p, err := x.tap.Receive(time.Now().Add(20 * time.Millisecond))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			require.NoError(t, err)
			if len(p.Payload) >= 240 && (x.mac == "" || strings.Contains(p.Text(""), "chaddr "+x.mac+"\n")) {
				x.packets = append(x.packets, p)
			}
		}
	}
}

// text renders the capture so that two runs of the same sequence read the same:
// a message with its retransmissions, copies by relays and answers is one
// exchange, listed when it began; exchanges that say the same are one.
func (c *capture) text() string {
	var b strings.Builder
	for _, x := range c.wires {
		fmt.Fprintf(&b, "== %s\n", x.name)
		b.WriteString(exchanges(x.packets))
	}
	return b.String()
}

func exchanges(packets []probe.Packet) string {
	type exchange struct{ asked, answered []string }
	type key struct {
		xid    uint32
		kind   string
		ciaddr [4]byte // some clients keep the xid from SELECTING to RENEWING
	}
	var order []key
	byKey := map[key]*exchange{}
	for i := range packets {
		p := &packets[i]
		text := fmt.Sprintf("%s  %s > %s\n%s", p.Type(), p.From, p.To, normalise(p.Text("    ")))
		answer := p.Payload[0] == 2
		k := key{binary.BigEndian.Uint32(p.Payload[4:]), p.Type(), [4]byte(p.Payload[12:16])}
		if answer {
			// What was asked last by this xid; an ACK to an INFORM or REQUEST, an OFFER to a DISCOVER.
			for j := len(order) - 1; j >= 0; j-- {
				if o := order[j]; o.xid == k.xid && (k.kind == "OFFER") == (o.kind == "DISCOVER") && (o.ciaddr == k.ciaddr || k.kind == "NAK") {
					k = o
					break
				}
			}
		}
		e := byKey[k]
		if e == nil {
			e = &exchange{}
			byKey[k] = e
			order = append(order, k)
		}
		list := &e.asked
		if answer {
			list = &e.answered
		}
		if !slices.Contains(*list, text) {
			*list = append(*list, text)
		}
	}
	var b strings.Builder
	seen := map[string]bool{}
	for _, k := range order {
		e := byKey[k]
		slices.Sort(e.asked)
		slices.Sort(e.answered)
		text := "-- " + k.kind + "\n" + strings.Join(e.asked, "")
		for _, a := range e.answered {
			text += "  answer: " + a
		}
		if len(e.answered) == 0 {
			text += "  no answer\n"
		}
		if !seen[text] {
			seen[text] = true
			b.WriteString(text)
		}
	}
	return b.String()
}

var changing = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`xid 0x[0-9a-f]+, secs \d+`), "xid *, secs *"},
	{regexp.MustCompile(`(Class Identifier: ).*`), "$1*"}, // names a version
	{regexp.MustCompile(`(Host Name: ).*`), "$1*"},
}

func normalise(s string) string {
	for _, c := range changing {
		s = c.re.ReplaceAllString(s, c.to)
	}
	return s
}

// golden compares the capture with a file. Copies by relays may come a little
// later than the answer that the client acted on, so it looks for a while.
func (c *capture) golden(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join("testdata", "captures", name+".txt")
	if *update {
		deadline := time.Now().Add(time.Second)
		for time.Now().Before(deadline) {
			c.drain(t)
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(c.text()), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update")
	deadline := time.Now().Add(3 * time.Second)
	for {
		c.drain(t)
		if c.text() == string(want) {
			return
		}
		if time.Now().After(deadline) {
			require.Equal(t, string(want), c.text(), "%s; if the change is right, run the test with -update", path)
		}
	}
}
