package show

import (
	"bytes"
	"io"
	"net/netip"
	"reflect"
	"regexp"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
)

// fill puts a text wherever an answer has room for one, and two of whatever there may be many of.
func fill(v reflect.Value, text string, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), text, depth-1)
		}
	case reflect.Slice:
		if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0), text, depth-1)
			fill(v.Index(1), text, depth-1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), text, depth)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text, depth-1)
		fill(value, text, depth-1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		switch a := v.Addr().Interface().(type) {
		case *netip.Addr:
			*a = netip.MustParseAddr("fe80::1").WithZone(text)
			return
		case *time.Time:
			*a = time.Now()
			return
		}
		for i := range v.NumField() {
			switch f := v.Type().Field(i); {
			case f.Tag.Get("terminal") == "lines":
				fill(v.Field(i), cli.Line(text), depth) // whoever writes these quotes what is in them
			case f.IsExported():
				fill(v.Field(i), text, depth)
			}
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// view is one of the answers that commands print for people.
type view struct {
	name  string
	print func(c *cli.Program, cmd *cobra.Command, text string) error
}

func viewOf[T any](name string, print func(io.Writer, *T) error) view {
	return view{name, func(c *cli.Program, cmd *cobra.Command, text string) error {
		v := new(T)
		fill(reflect.ValueOf(v).Elem(), text, 9)
		return cli.Show(c, cmd, v, print)
	}}
}

var views = []view{
	viewOf[console.Status]("status", printStatus),
	viewOf[console.Explanation]("explain", printExplanation),
	viewOf[console.Option82View]("option82", printOption82),
	viewOf[console.Option82Unknowns]("option82 suggest", printUnknown),
	viewOf[console.PoolsView]("pools", printPools),
	viewOf[console.GuardView]("guard", printGuard),
	viewOf[console.GuardResult]("guard accept", printGuardResult),
	viewOf[console.LeaseDropped]("leases drop", printLeaseDropped),
	viewOf[console.ACLSummary]("acl show", printACLSummary),
	viewOf[console.ACLSubject]("acl show address", printACLSubject),
	viewOf[console.ACLDiff]("acl diff", printACLDiff),
	viewOf[aclVerified]("acl verify", printACLVerified),
	viewOf[console.RoutesView]("routes", func(w io.Writer, v *console.RoutesView) error { return printRoutes(w, v, true) }),
}

// shown is what a view prints with a text everywhere.
func shown(t *testing.T, v view, text string) string {
	t.Helper()
	root, c := cli.NewRoot("test")
	root.AddCommand(&cobra.Command{Use: "x", RunE: func(cmd *cobra.Command, _ []string) error { return v.print(c, cmd, text) }})
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	require.Zero(t, cli.Execute(t.Context(), root, []string{"x"}), errs.String())
	return out.String()
}

// times pass between two looks.
var times = regexp.MustCompile(`[0-9]+`)

// FuzzViews proves that what others write, be it the ERP, a packet or a process, neither steers the terminal nor adds a line.
func FuzzViews(f *testing.F) {
	f.Add("sw\x1b[2J\x1b[31m\x1b]0;t\a")
	f.Add("port\nacl  198.51.100.1: wanted open, in the kernel open")
	f.Add("a\tb\rc\u202ed\u009b31m\xff\u2028")
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range views {
			out := shown(t, v, text)
			for _, r := range out {
				require.True(t, unicode.IsPrint(r) || r == '\n', "%s: %q in %q", v.name, r, out)
			}
			// It looks as if the text had been printable from the beginning, so no line is forged.
			require.Equal(t, times.ReplaceAllString(shown(t, v, cli.Line(text)), "0"), times.ReplaceAllString(out, "0"), v.name)
		}
	})
}
