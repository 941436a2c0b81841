// Package tools is the commands for a desk rather than a router: the stand-in of
// the ERP, and a DHCP client that asks servers.
package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside/emulator"
	"github.com/usher-agent/usher/userside/record"
)

// Commands returns the tools.
func Commands(c *cli.Program) []*cobra.Command {
	return []*cobra.Command{newEmulator(c), newProbe(c)}
}

func newEmulator(c *cli.Program) *cobra.Command {
	var listen, admin, data, profile, shape, replay, hookURL, hookSecret string
	var keys []string
	var customers int
	var seed uint64
	var verbose bool
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "Serve the stand-in of the UserSide ERP",
		Long: `emulator serves /api.php as a UserSide ERP does, from a store of its own that a seeded generator
fills with switches, ports, VLANs, subnets and customers in all states. A second listener has a page
where states and defects of the server are switched at run time.

The generated data is the same for the same seed and number of customers. With --data it is kept in a
file; a file that holds data is used as it is.

With --replay it serves a recording of "usher erp record" instead: what was answered then, to any key.
It takes no changes and has no second listener.`,
		Example: `  usher emulator --listen 127.0.0.1:8480
  usher emulator --listen 127.0.0.1:8480 --customers 100000 --data /tmp/erp.db
  usher emulator --listen 127.0.0.1:8480 --profile legacy --shape C
  usher emulator --listen 127.0.0.1:8480 --key demo-key --key reader@127.0.0.1/customer,device
  usher emulator --listen 127.0.0.1:8480 --replay case
  curl 'http://127.0.0.1:8480/api.php?key=demo-key&cat=system&action=get_system_info'`,
		Args: cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := emulator.ParseProfile(profile)
			if err != nil {
				return cli.Usage(fmt.Errorf("--profile: %w", err))
			}
			s, err := emulator.ParseShape(shape)
			if err != nil {
				return cli.Usage(fmt.Errorf("--shape: %w", err))
			}
			for flag, addr := range map[string]string{"--listen": listen, "--admin": admin} {
				if _, err := netip.ParseAddrPort(addr); err != nil && addr != "" {
					return cli.Usage(fmt.Errorf("%s %q: want ADDRESS:PORT", flag, addr))
				}
			}
			if replay != "" {
				for _, other := range []string{"admin", "data", "customers", "seed", "profile", "shape", "key", "verbose", "hook-url"} {
					if cmd.Flags().Changed(other) {
						return cli.Usage(fmt.Errorf("--%s says nothing about a recording; leave it out with --replay", other))
					}
				}
				return serveReplay(c, cmd, listen, replay)
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			log := cli.NewLogger(cmd.ErrOrStderr(), "auto", level)
			accepted, err := parseKeys(keys)
			if err != nil {
				return cli.Usage(err)
			}
			var secret []byte
			if hookURL != "" {
				if secret, err = os.ReadFile(hookSecret); err != nil {
					return cli.Usage(fmt.Errorf("--hook-url wants --hook-secret-file: %w", err))
				}
			}
			erp, err := emulator.Open(emulator.Options{
				Path: data, Keys: accepted, Profile: p, Shape: s,
				Seed: seed, Customers: customers, Log: log,
				HookURL: hookURL, HookSecret: emulator.Secret(strings.TrimSpace(string(secret))),
			})
			if err != nil {
				return err
			}
			defer erp.Close()
			var ready struct {
				URL       string         `json:"url"`
				Admin     string         `json:"admin,omitempty"`
				Customers int            `json:"customers"`
				Devices   int            `json:"devices"`
				Subnets   []netip.Prefix `json:"subnets"`
			}
			g, ctx := errgroup.WithContext(cmd.Context())
			api, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			serveHTTP(ctx, g, api, erp)
			ready.URL = "http://" + api.Addr().String() + "/api.php"
			if admin != "" {
				ln, err := net.Listen("tcp", admin)
				if err != nil {
					return errors.Join(err, api.Close())
				}
				serveHTTP(ctx, g, ln, erp.AdminHandler())
				ready.Admin = "http://" + ln.Addr().String() + "/admin/"
			}
			ready.Customers, ready.Devices, ready.Subnets = len(erp.Customers()), len(erp.Devices()), erp.Subnets()
			if c.Output == "json" {
				err = cli.PrintJSON(cmd.OutOrStdout(), ready)
			} else {
				err = printReady(cmd.OutOrStdout(), ready.URL, ready.Admin, ready.Customers, ready.Devices, ready.Subnets)
			}
			return errors.Join(err, g.Wait())
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:8480", "address of the API")
	f.StringVar(&admin, "admin", "127.0.0.1:8481", "address of the page that switches states and defects; empty: off")
	f.StringVar(&data, "data", "", "file that keeps the data; empty: memory only")
	f.IntVar(&customers, "customers", 100, "customers to generate")
	f.Uint64Var(&seed, "seed", 1, "seed of the generator")
	f.StringVar(&profile, "profile", "modern", "generation of the ERP: v316, legacy, modern or v321")
	f.StringVar(&shape, "shape", "A", "shape of get_ip_port_device_commutation: A to F")
	f.StringArrayVar(&keys, "key", []string{"demo-key"}, "API key to accept: KEY[@ADDRESS][/SECTION,SECTION]; may be repeated")
	f.StringVar(&hookURL, "hook-url", "", "hint endpoint of an agent to call on each change, such as http://127.0.0.1:9468/hooks/customer")
	f.StringVar(&hookSecret, "hook-secret-file", "", "file with the secret that signs the hints")
	cli.Must(cmd.MarkFlagFilename("hook-secret-file"))
	f.BoolVarP(&verbose, "verbose", "v", false, "log every call")
	f.StringVar(&replay, "replay", "", "directory of a recording to serve instead of generated data")
	cli.Must(cmd.MarkFlagDirname("replay"))
	cli.Must(cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"v316", "legacy", "modern", "v321"}, cobra.ShellCompDirectiveNoFileComp)))
	cli.Must(cmd.RegisterFlagCompletionFunc("shape", cobra.FixedCompletions(strings.Split("ABCDEF", ""), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// serveReplay serves a recording.
func serveReplay(c *cli.Program, cmd *cobra.Command, listen, dir string) error {
	set, err := record.Load(dir)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(cmd.Context())
	serveHTTP(ctx, g, ln, set)
	ready := struct {
		URL       string   `json:"url"`
		Replay    string   `json:"replay"`
		Exchanges int      `json:"exchanges"`
		Actions   []string `json:"actions"`
	}{"http://" + ln.Addr().String() + "/api.php", dir, len(set.Exchanges()), set.Actions()}
	if c.Output == "json" {
		err = cli.PrintJSON(cmd.OutOrStdout(), ready)
	} else {
		rows := [][]string{{"api", ready.URL}, {"replay", dir}, {"exchanges", fmt.Sprint(ready.Exchanges)}}
		for i, a := range ready.Actions {
			rows = append(rows, []string{map[bool]string{true: "actions"}[i == 0], a})
		}
		err = cli.Table(cmd.OutOrStdout(), rows)
	}
	return errors.Join(err, g.Wait())
}

// parseKeys reads keys as the flag has them: KEY[@ADDRESS][/SECTION,SECTION].
func parseKeys(words []string) ([]emulator.Key, error) {
	keys := make([]emulator.Key, len(words))
	for i, w := range words {
		w, sections, limited := strings.Cut(w, "/")
		key, ip, bound := strings.Cut(w, "@")
		if bound {
			if _, err := netip.ParseAddr(ip); err != nil {
				return nil, fmt.Errorf("--key number %d: want an address behind the @", i+1)
			}
		}
		if key == "" || limited && sections == "" {
			return nil, fmt.Errorf("--key number %d: want KEY[@ADDRESS][/SECTION,SECTION]", i+1)
		}
		keys[i] = emulator.Key{Key: key, IP: ip}
		if limited {
			keys[i].Sections = strings.Split(sections, ",")
		}
	}
	return keys, nil
}

func printReady(w io.Writer, url, admin string, customers, devices int, subnets []netip.Prefix) error {
	rows := [][]string{{"api", url}, {"customers", fmt.Sprint(customers)}, {"switches", fmt.Sprint(devices)}}
	if admin != "" {
		rows = append(rows, []string{"controls", admin})
	}
	for i, s := range subnets {
		if i == 4 && len(subnets) > 5 {
			rows = append(rows, []string{"", fmt.Sprintf("and %d more", len(subnets)-i)})
			break
		}
		rows = append(rows, []string{map[bool]string{true: "subnets"}[i == 0], s.String()})
	}
	return cli.Table(w, rows)
}

// serveHTTP serves h on ln in g until ctx ends.
func serveHTTP(ctx context.Context, g *errgroup.Group, ln net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(stop) != nil {
			return srv.Close()
		}
		return nil
	})
}
