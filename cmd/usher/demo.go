package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// demoLimit bounds the steps of a demo; looking around afterwards is bounded by --for.
const demoLimit = 90 * time.Second

func newDemo(c *cli) *cobra.Command {
	var once, loopback, keep bool
	var stay time.Duration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole job on this machine: lease, MAC report, block, unblock",
		Long: `demo builds a provider in miniature out of network namespaces: two customers, a switch with a
real DHCP relay, the router with this agent, the internet, and an emulated ERP. Real DHCP clients
get their addresses, the MAC appears in the ERP, a customer is paused and resumed, and a live TCP
connection shows when the kernel acts. Nothing outside of the namespaces is touched.

Without root, or with --loopback, agent, emulator and a built-in client run on loopback with
unprivileged ports and an ACL that is only computed.`,
		Example: "  usher demo\n  usher demo --once\n  usher demo --loopback --once --output json",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), demoLimit, fmt.Errorf("the demo took longer than %s", demoLimit))
			defer cancel()
			dir, err := os.MkdirTemp("", "usher-demo-")
			if err != nil {
				return err
			}
			d := &demo{out: cmd.OutOrStdout(), json: c.output == "json", dir: dir, begun: time.Now()}
			d.paint = newPaint(d.out)
			missing := lab.Missing("ping", "udhcpc", "dhcrelay")
			run := d.namespaces
			if loopback || len(missing) > 0 {
				if !loopback {
					d.say("no namespaces here (missing: %s): agent, ERP and a built-in client on loopback, ACL computed only", strings.Join(missing, ", "))
				}
				run = d.loopback
			}
			defer func() {
				for _, f := range d.cleanup {
					f()
				}
			}()
			err = run(ctx, func() {
				if !once && !d.json && isTerminal(d.out) && isTerminal(os.Stdin) {
					d.lookAround(cmd.Context(), stay)
				}
			})
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
				if cmd.Context().Err() != nil {
					return errors.Join(errors.New("interrupted; everything was cleaned up"), os.RemoveAll(dir))
				}
			}
			return d.finish(err, keep)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "do not stay for a look around at the end")
	cmd.Flags().BoolVar(&loopback, "loopback", false, "without namespaces, also as root")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep logs and files also when all went well")
	cmd.Flags().DurationVar(&stay, "for", 10*time.Minute, "how long to stay for a look around")
	return cmd
}

// demo prints the steps and remembers them.
type demo struct {
	out   io.Writer
	paint paint
	json  bool
	dir   string
	begun time.Time
	steps []demoStep

	cleanup []func()
}

type demoStep struct {
	AtSeconds float64 `json:"at_seconds"`
	Text      string  `json:"text"`
	Look      string  `json:"look,omitempty"`
	Error     string  `json:"error,omitempty"`
}

func (d *demo) say(format string, args ...any) {
	if !d.json {
		fmt.Fprintf(d.out, format+"\n", args...)
	}
}

// step runs f, which says what was seen, and prints it with the time and where to look.
func (d *demo) step(look string, f func() (string, error)) error {
	text, err := f()
	s := demoStep{AtSeconds: time.Since(d.begun).Round(time.Millisecond).Seconds(), Text: text, Look: look}
	mark := d.paint.green("ok")
	if err != nil {
		s.Error, mark = err.Error(), d.paint.red("FAILED")
		if text == "" {
			text = "could not go on"
		}
	}
	d.steps = append(d.steps, s)
	d.say("%6.2fs  %s  %s", s.AtSeconds, mark, text)
	if look != "" && err == nil {
		d.say("             %s", d.paint.faint("look: "+look))
	}
	return err
}

// finish prints the end and removes the files, unless they help.
func (d *demo) finish(err error, keep bool) error {
	if d.json {
		out := struct {
			OK      bool       `json:"ok"`
			Error   string     `json:"error,omitempty"`
			Steps   []demoStep `json:"steps"`
			Seconds float64    `json:"seconds"`
		}{OK: err == nil, Steps: d.steps, Seconds: time.Since(d.begun).Seconds()}
		if err != nil {
			out.Error = err.Error()
		}
		if jerr := printJSON(d.out, out); jerr != nil {
			return jerr
		}
	}
	if err != nil {
		return fmt.Errorf("demo: %w (logs and files: %s)", err, d.dir)
	}
	if keep {
		d.say("files kept in %s", d.dir)
		return nil
	}
	return os.RemoveAll(d.dir)
}

// lookAround keeps everything up until Ctrl-C.
func (d *demo) lookAround(ctx context.Context, limit time.Duration) {
	d.say("all is up for %s; Ctrl-C ends and cleans up", limit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	<-ctx.Done()
}

// namespaces is the demo with real programs and the kernel.
func (d *demo) namespaces(ctx context.Context, end func()) error {
	var w *world
	self, err := os.Executable()
	if err != nil {
		return err
	}
	defer func() {
		if w != nil {
			w.close()
		}
	}()
	if err := d.step("ip netns list", func() (string, error) {
		w, err = newWorld(worldOptions{name: "demo", dir: d.dir, homes: 2, poll: time.Second,
			extra: "portal:\n  listen: " + demoPortal + "\n  provider: Example Net\n  pay_url: https://pay.example.net/{customer}\n"})
		if err != nil {
			return "", err
		}
		return "customer and neighbour -- switch with dhcrelay -- router -- internet; the ERP emulator runs", w.echoServer()
	}); err != nil {
		return err
	}
	customer, neighbour := w.homes[0], w.homes[1]
	inRouter := "ip netns exec " + w.router.Namespace + " "
	if err := d.step(self+" status --socket "+w.socket(), func() (string, error) {
		if err := w.startRelay(ctx); err != nil {
			return "", err
		}
		if err := w.startAgent(ctx); err != nil {
			return "", err
		}
		st, err := w.client.Status(ctx)
		return fmt.Sprintf("usher run is ready: %d bindings from the ERP", st.Sync.Counts.Bindings), err
	}); err != nil {
		return err
	}
	if err := d.step("ip netns exec "+customer.host.Namespace+" ip addr show eth0", func() (string, error) {
		began := time.Now()
		for _, h := range w.homes {
			if err := w.lease(ctx, h); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("udhcpc behind port %s got its address %s, the neighbour on %s got %s (%d ms)",
			customer.port, customer.ip, neighbour.port, neighbour.ip, time.Since(began).Milliseconds()), nil
	}); err != nil {
		return err
	}
	if err := d.step(self+" explain "+customer.ip.String()+" --socket "+w.socket(), func() (string, error) {
		mac, err := learnedMAC(ctx, w.erp, customer.id, customer.ip)
		return fmt.Sprintf("the ERP learned by set_mac_by_ip that %s is at %s", customer.ip, mac), err
	}); err != nil {
		return err
	}
	var live, other *flow
	if err := d.step("", func() (string, error) {
		if _, err := customer.host.Output(ctx, "ping", "-c1", "-W2", worldInternet); err != nil {
			return "", err
		}
		if live, err = startFlow(customer.host); err != nil {
			return "", err
		}
		w.onClose(live.close)
		if other, err = startFlow(neighbour.host); err != nil {
			return "", err
		}
		w.onClose(other.close)
		return "ping and a TCP connection run through the router, the neighbour's too", beating(ctx, live)
	}); err != nil {
		return err
	}
	if err := d.step(inRouter+"nft list table inet usher", func() (string, error) {
		began := time.Now()
		if err := w.erp.SetState(customer.id, emulator.StatePause); err != nil {
			return "", err
		}
		ended, err := live.waitEnd(ctx, 10*time.Second)
		if err != nil {
			return "", err
		}
		if _, err := customer.host.Output(ctx, "ping", "-c1", "-W1", worldInternet); err == nil {
			return "", errors.New("ping still passes")
		}
		if err := beating(ctx, other); err != nil {
			return "", fmt.Errorf("the neighbour is hit too: %w", err)
		}
		return fmt.Sprintf("paused in the ERP: the connection died after %d ms (poll every second); the neighbour's goes on", ended.Sub(began).Milliseconds()), nil
	}); err != nil {
		return err
	}
	if err := d.step("ip netns exec "+customer.host.Namespace+" curl -i http://"+worldInternet+"/", func() (string, error) {
		return w.seePortal(ctx, customer)
	}); err != nil {
		return err
	}
	if err := d.step(self+" customer pause "+fmt.Sprint(customer.id)+" --socket "+w.socket(), func() (string, error) {
		began := time.Now()
		if _, err := w.client.SetState(ctx, provision.SubscriberID(customer.id), provision.StateActive); err != nil {
			return "", err
		}
		took := time.Since(began)
		if live, err = startFlow(customer.host); err != nil {
			return "", err
		}
		w.onClose(live.close)
		if _, err := customer.host.Output(ctx, "ping", "-c1", "-W2", worldInternet); err != nil {
			return "", err
		}
		return fmt.Sprintf("\"usher customer resume\": ERP and kernel done in %d ms, ping and TCP run again", took.Milliseconds()), beating(ctx, live)
	}); err != nil {
		return err
	}
	d.say("%s in %.1f s: pull, lease, report, block, unblock", d.paint.bold("the whole job"), time.Since(d.begun).Seconds())
	end()
	return nil
}

// demoPortal is where the router serves the portal page.
const demoPortal = "10.0.0.1:8080"

// seePortal tells what a paused customer's browser meets: HTTP leads to the
// portal, HTTPS is refused at once.
func (w *world) seePortal(ctx context.Context, h home) (string, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return h.host.Dial(worldInternet+":80", 2*time.Second)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+worldInternet+"/", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	_, title, _ := strings.Cut(string(page), "<title>")
	title, _, _ = strings.Cut(title, "</title>")
	if resp.StatusCode != http.StatusNetworkAuthenticationRequired || title == "" {
		return "", fmt.Errorf("no portal page: status %d", resp.StatusCode)
	}
	began := time.Now()
	if conn, err := h.host.Dial(worldInternet+":443", 2*time.Second); err == nil {
		return "", errors.Join(errors.New("https passes"), conn.Close())
	} else if isTimeout(err) {
		return "", fmt.Errorf("https hangs: %w", err)
	}
	return fmt.Sprintf("the customer's browser sees status %d, \"%s\"; HTTPS is refused after %.1f ms", resp.StatusCode,
		html.UnescapeString(title), float64(time.Since(began).Microseconds())/1000), nil
}

// lease runs a DHCP client for a home until it has the address that the ERP binds.
func (w *world) lease(ctx context.Context, h home) error {
	p, err := w.dhcpClient(h)
	if err != nil {
		return err
	}
	if err := until(ctx, 15*time.Second, "udhcpc gets a lease", func() (bool, error) {
		return strings.Contains(p.Log(), "bound ip="), nil
	}); err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(p.Log(), 4))
	}
	if !strings.Contains(p.Log(), "bound ip="+h.ip.String()+" ") {
		return fmt.Errorf("%s was given another address than %s: %s", h.host.Name, h.ip, lastLines(p.Log(), 1))
	}
	return nil
}

// beating waits until a flow has carried some more bytes.
func beating(ctx context.Context, f *flow) error {
	_, start := f.alive()
	return until(ctx, 3*time.Second, "bytes flow", func() (bool, error) {
		alive, n := f.alive()
		if !alive {
			return false, fmt.Errorf("the connection broke: %w", f.failure())
		}
		return n >= start+5, nil
	})
}
