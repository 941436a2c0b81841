// Package check is "usher check": what is wrong with a configuration, what should be known of
// it on this host, and what is believed from whom.
package check

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/config/ifname"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
)

// Report is what the command says, and its JSON.
type Report struct {
	File     string         `json:"file"`
	OK       bool           `json:"ok"`       // the exit code is 0
	Problems []keys.Problem `json:"problems"` // mistakes, and questions that are not answered: those have "unanswered"
	Warnings []keys.Problem `json:"warnings"`
	Believed []Source       `json:"believed,omitempty"` // absent: the file has mistakes
	Notes    []string       `json:"notes,omitempty"`    // what holds for all of them
	IPv6     []string       `json:"ipv6,omitempty"`     // what becomes of that of blocked subscribers, on a host that forwards it
}

// Command returns the command.
func Command(c *cli.Program) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate a configuration and say everything that is wrong with it",
		Long: `check reads a configuration as "usher run" would and prints every mistake at once, each as
file:line:column: key: reason. It exits 0 when the file is good and 1 when it is not. Warnings tell
of what works but should be known, such as names that fit no interface of this host; they do not change the exit code.

A file that does not say where option 82 is believed without a relay (dhcp.trusted_interfaces), or whose it is that comes
through one (dhcp.option82_relays), is no good one, though "usher run" takes it and believes as before: check says what to add, and exits 1. So it does for a name that is only
another name (altname) of an interface: packets come in under the one name, and the key would mean no interface.

At the end stands what is believed from whom. With --output json that is "believed", a list with, for each: "who"; "key", where
the file says so; "which", as the file names them; "now", the interfaces of this host that are meant; and "tells_line",
"tells_wire", "takes_lease", "writes_erp", each yes, no or partly; "note" says what is refused. See docs/dhcp-matching.md. On a host that forwards IPv6 it is said too what becomes of that of
blocked subscribers ("ipv6"; docs/acl.md).`,
		Example: "  usher check --config /etc/usher/usher.yaml\n  usher check --config new.yaml --output json",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			host := interfaces()
			r, cfg, err := examine(path, host)
			if err != nil {
				return err
			}
			if link.ForwardsIPv6() {
				uplinks, _ := link.Uplinks(0) // what cannot be asked is none
				r.addIPv6(cfg, host, kernelRelease(), uplinks)
			}
			if c.Output == "json" {
				err = cli.PrintJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.print(cmd.OutOrStdout(), cmd.ErrOrStderr(), cfg)
			}
			if err == nil && !r.OK {
				return cli.ErrSilent
			}
			return err
		},
	}
	cli.ConfigFlag(cmd, &path)
	return cmd
}

// examine judges a file for a host. The configuration is nil if the file has mistakes; an error
// says that there is nothing to read.
func examine(path string, host []provision.Interface) (*Report, *config.Config, error) {
	r := &Report{File: path, Problems: []keys.Problem{}, Warnings: []keys.Problem{}}
	cfg, err := config.Load(path)
	var wrong *keys.Errors
	switch {
	case errors.As(err, &wrong):
		r.Problems = wrong.Problems
		return r, nil, nil
	case err != nil:
		return nil, nil, err
	}
	for _, w := range cfg.Warnings {
		if w.Unanswered {
			r.Problems = append(r.Problems, w)
		} else {
			r.Warnings = append(r.Warnings, w)
		}
	}
	for _, w := range cfg.InterfaceWarnings(names(host), otherNames(host)) {
		if w.Unanswered {
			r.Problems = append(r.Problems, w)
		} else {
			r.Warnings = append(r.Warnings, w)
		}
	}
	r.OK = len(r.Problems) == 0
	r.Warnings = append(r.Warnings, besideSubscribers(cfg, host)...)
	r.Warnings = append(r.Warnings, slices.Concat(cfg.GuardWarnings(path, host), cfg.ResolverWarnings(path))...)
	slices.SortStableFunc(r.Warnings, func(a, b keys.Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	r.Believed, r.Notes = Believed(cfg, host)
	return r, cfg, nil
}

func (r *Report) print(out, errs io.Writer, cfg *config.Config) error {
	for _, p := range r.Problems {
		printProblem(errs, "", p)
	}
	for _, p := range r.Warnings {
		printProblem(errs, "warning: ", p)
	}
	if cfg == nil {
		return nil
	}
	if r.OK {
		fmt.Fprintf(out, "%s: good: %d subnets, ERP %s\n", r.File, len(cfg.DHCP.Subnets), cfg.ERP.Client.URL)
	} else {
		fmt.Fprintf(errs, "%s: not good yet: usher run takes it as it stands\n", r.File)
	}
	if err := printBelieved(out, r.Believed, r.Notes); err != nil || len(r.IPv6) == 0 {
		return err
	}
	_, err := fmt.Fprintf(out, "\nIPv6 of the paused and the stopped\n  %s\n", strings.Join(r.IPv6, "\n  "))
	return err
}

// printProblem writes a line, and below it what may be pasted.
func printProblem(w io.Writer, prefix string, p keys.Problem) {
	fmt.Fprintf(w, "%s%s\n", prefix, p)
	for _, line := range p.Paste {
		fmt.Fprintf(w, "    %s\n", line)
	}
}

// kernelRelease returns that of this host; empty if it cannot be read.
func kernelRelease() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(b))
}

// interfaces returns those of this host with their IPv4 addresses; what cannot be read is none.
func interfaces() []provision.Interface {
	view, err := link.Interfaces(link.WatchOptions{})
	if err != nil {
		return nil
	}
	out := make([]provision.Interface, 0, view.Len())
	for _, f := range view.All() {
		out = append(out, *f)
	}
	return out
}

// otherNames returns the interface's name by each alternative one.
func otherNames(host []provision.Interface) map[string]string {
	out := map[string]string{}
	for _, f := range host {
		for _, other := range f.AltNames {
			out[other] = f.Name
		}
	}
	return out
}

func names(host []provision.Interface) []string {
	out := make([]string, len(host))
	for i, f := range host {
		out[i] = f.Name
	}
	return out
}

// fits returns those interfaces of a host that a list of the file names, in the order of the host.
func fits(cfg *config.Config, host []provision.Interface, key string) []string {
	var out []string
	for _, f := range host {
		if slices.ContainsFunc(cfg.Interfaces, func(n ifname.Name) bool { return n.List() == key && len(n.Fits([]string{f.Name})) > 0 }) {
			out = append(out, f.Name)
		}
	}
	return out
}

// besideSubscribers warns of relays, listed as one address, that share an interface with subscribers
// by the addresses of this host, and were not warned of for what the file says.
func besideSubscribers(cfg *config.Config, host []provision.Interface) []keys.Problem {
	if !cfg.DHCP.Enabled {
		return nil
	}
	on := slices.Concat(fits(cfg, host, keySubscribers), fits(cfg, host, keyVLANs))
	out := unnumbered(cfg, host, on)
	for _, r := range cfg.RelayPlaces {
		if !r.Prefix.IsSingleIP() || slices.ContainsFunc(cfg.Warnings, func(w keys.Problem) bool { return w.Key == r.At.Key }) {
			continue
		}
		for _, f := range host {
			if slices.Contains(on, f.Name) && f.AddrIn(r.Prefix) != r.Prefix.Addr() &&
				slices.ContainsFunc(f.Addrs, func(a netip.Prefix) bool { return a.Contains(r.Prefix.Addr()) }) {
				p := r.At
				p.Reason = config.NeighbourOfRelay(r.Prefix.Addr(), "is reached by "+f.Name+", where subscribers are")
				out = append(out, p)
				break
			}
		}
	}
	return out
}

// unnumbered warns of interfaces of subscribers whose network does not tell that a relay, listed as one
// address, is elsewhere.
func unnumbered(cfg *config.Config, host []provision.Interface, on []string) []keys.Problem {
	var open []string
	for _, f := range host {
		if slices.Contains(on, f.Name) && !slices.ContainsFunc(f.Addrs, func(a netip.Prefix) bool { return !a.IsSingleIP() }) {
			open = append(open, f.Name)
		}
	}
	i := slices.IndexFunc(cfg.RelayPlaces, func(r config.RelayPlace) bool { return r.Prefix.IsSingleIP() })
	if i < 0 || len(open) == 0 {
		return nil
	}
	p := cfg.RelayPlaces[i].At
	p.Reason = fmt.Sprintf("a relay listed as one address is believed on %s too, where subscribers are: an interface without a network does not tell that it is elsewhere. "+
		"List relays that are on none of them as networks (/31 or shorter)", some(open))
	return []keys.Problem{p}
}
