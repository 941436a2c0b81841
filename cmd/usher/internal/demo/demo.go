// Package demo is the command that shows the whole job on one machine.
package demo

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

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/userside/emulator"
)

// demoLimit bounds the steps of a demo; looking around afterwards is bounded by --for.
const demoLimit = 90 * time.Second

// Command returns "usher demo".
func Command(c *cli.Program) *cobra.Command {
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
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), demoLimit, fmt.Errorf("the demo took longer than %s", demoLimit))
			defer cancel()
			dir, err := os.MkdirTemp("", "usher-demo-")
			if err != nil {
				return err
			}
			d := &demo{out: cmd.OutOrStdout(), json: c.Output == "json", dir: dir, begun: time.Now()}
			d.paint = cli.NewPaint(d.out)
			missing := lab.Missing("ping", "udhcpc", "dhcrelay")
			run := d.namespaces
			if loopback || len(missing) > 0 {
				if !loopback {
					d.say("no namespaces here (missing: %s): agent, ERP and a built-in client on loopback, ACL computed only", strings.Join(missing, ", "))
				}
				run = d.loopback
			}
			err = run(ctx, func() {
				if !once && !d.json && cli.IsTerminal(d.out) && cli.IsTerminal(os.Stdin) {
					d.lookAround(cmd.Context(), stay)
				}
			})
			for _, f := range d.cleanup { // before the files go: the agent writes to them until it has ended
				f()
			}
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
	paint cli.Paint
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
	mark := d.paint.Green("ok")
	if err != nil {
		s.Error, mark = err.Error(), d.paint.Red("FAILED")
		if text == "" {
			text = "could not go on"
		}
	}
	d.steps = append(d.steps, s)
	d.say("%6.2fs  %s  %s", s.AtSeconds, mark, text)
	if look != "" && err == nil {
		d.say("             %s", d.paint.Faint("look: "+look))
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
		if jerr := cli.PrintJSON(d.out, out); jerr != nil {
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
	var w *miniature.World
	self, err := os.Executable()
	if err != nil {
		return err
	}
	defer func() {
		if w != nil {
			w.Close()
		}
	}()
	if err := d.step("ip netns list", func() (string, error) {
		w, err = miniature.New(miniature.Options{Name: "demo", Dir: d.dir, Homes: 2, Poll: time.Second,
			Extra: "portal:\n  listen: " + demoPortal + "\n  provider: Example Net\n  pay_url: https://pay.example.net/{customer}\n"})
		if err != nil {
			return "", err
		}
		return "customer and neighbour -- switch with dhcrelay -- router -- internet; the ERP emulator runs", w.EchoServer()
	}); err != nil {
		return err
	}
	customer, neighbour := w.Homes[0], w.Homes[1]
	inRouter := "ip netns exec " + w.Router.Namespace + " "
	if err := d.step(self+" status --socket "+w.Socket(), func() (string, error) {
		if err := w.StartRelay(ctx); err != nil {
			return "", err
		}
		if err := w.StartAgent(ctx); err != nil {
			return "", err
		}
		st, err := w.Client.Status(ctx)
		return fmt.Sprintf("usher run is ready: %d bindings from the ERP", st.Sync.Counts.Bindings), err
	}); err != nil {
		return err
	}
	if err := d.step("ip netns exec "+customer.Host.Namespace+" ip addr show eth0", func() (string, error) {
		began := time.Now()
		for _, h := range w.Homes {
			if err := w.Lease(ctx, h); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("udhcpc behind port %s got its address %s, the neighbour on %s got %s (%d ms)",
			customer.Port, customer.IP, neighbour.Port, neighbour.IP, time.Since(began).Milliseconds()), nil
	}); err != nil {
		return err
	}
	if err := d.step(self+" explain "+customer.IP.String()+" --socket "+w.Socket(), func() (string, error) {
		mac, err := miniature.LearnedMAC(ctx, w.ERP, customer.ID, customer.IP)
		return fmt.Sprintf("the ERP learned by set_mac_by_ip that %s is at %s", customer.IP, mac), err
	}); err != nil {
		return err
	}
	var live, other *miniature.Flow
	if err := d.step("", func() (string, error) {
		if _, err := customer.Host.Output(ctx, "ping", "-c1", "-W2", miniature.InternetIP); err != nil {
			return "", err
		}
		if live, err = miniature.StartFlow(customer.Host); err != nil {
			return "", err
		}
		w.OnClose(live.Close)
		if other, err = miniature.StartFlow(neighbour.Host); err != nil {
			return "", err
		}
		w.OnClose(other.Close)
		return "ping and a TCP connection run through the router, the neighbour's too", miniature.Beating(ctx, live)
	}); err != nil {
		return err
	}
	if err := d.step(inRouter+"nft list table inet usher", func() (string, error) {
		began := time.Now()
		if err := w.ERP.SetState(customer.ID, emulator.StatePause); err != nil {
			return "", err
		}
		ended, err := live.WaitEnd(ctx, 10*time.Second)
		if err != nil {
			return "", err
		}
		if _, err := customer.Host.Output(ctx, "ping", "-c1", "-W1", miniature.InternetIP); err == nil {
			return "", errors.New("ping still passes")
		}
		if err := miniature.Beating(ctx, other); err != nil {
			return "", fmt.Errorf("the neighbour is hit too: %w", err)
		}
		return fmt.Sprintf("paused in the ERP: the connection died after %d ms (poll every second); the neighbour's goes on", ended.Sub(began).Milliseconds()), nil
	}); err != nil {
		return err
	}
	if err := d.step("ip netns exec "+customer.Host.Namespace+" curl -i http://"+miniature.InternetIP+"/", func() (string, error) {
		return seePortal(ctx, customer)
	}); err != nil {
		return err
	}
	if err := d.step(self+" customer pause "+fmt.Sprint(customer.ID)+" --socket "+w.Socket(), func() (string, error) {
		began := time.Now()
		if _, err := w.Client.SetState(ctx, provision.SubscriberID(customer.ID), provision.StateActive); err != nil {
			return "", err
		}
		took := time.Since(began)
		if live, err = miniature.StartFlow(customer.Host); err != nil {
			return "", err
		}
		w.OnClose(live.Close)
		if _, err := customer.Host.Output(ctx, "ping", "-c1", "-W2", miniature.InternetIP); err != nil {
			return "", err
		}
		return fmt.Sprintf("\"usher customer resume\": ERP and kernel done in %d ms, ping and TCP run again", took.Milliseconds()), miniature.Beating(ctx, live)
	}); err != nil {
		return err
	}
	d.say("%s in %.1f s: pull, lease, report, block, unblock", d.paint.Bold("the whole job"), time.Since(d.begun).Seconds())
	end()
	return nil
}

// demoPortal is where the router serves the portal page.
const demoPortal = "10.0.0.1:8080"

// seePortal tells what a paused customer's browser meets: HTTP leads to the
// portal, HTTPS is refused at once.
func seePortal(ctx context.Context, h miniature.Home) (string, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return h.Host.Dial(miniature.InternetIP+":80", 2*time.Second)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+miniature.InternetIP+"/", nil)
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
	if conn, err := h.Host.Dial(miniature.InternetIP+":443", 2*time.Second); err == nil {
		return "", errors.Join(errors.New("https passes"), conn.Close())
	} else if miniature.IsTimeout(err) {
		return "", fmt.Errorf("https hangs: %w", err)
	}
	return fmt.Sprintf("the customer's browser sees status %d, \"%s\"; HTTPS is refused after %.1f ms", resp.StatusCode,
		html.UnescapeString(title), float64(time.Since(began).Microseconds())/1000), nil
}
