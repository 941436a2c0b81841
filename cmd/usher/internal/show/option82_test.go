package show

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/option82"
)

var updateDocs = flag.Bool("update-docs", false, "write the generated tables of docs/")

func TestOption82WithoutAgent(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.sock")
	for _, spelling := range []string{"010600040064000502080006c0c520846e91", "01:06:00:04:00:64:00:05 02080006c0-c5-20-84-6e-91", "0x0106000400640005 0208 0006 C0C520846E91", "5212010600040064000502080006c0c520846e91"} {
		code, out, stderr := runCLI(t, "option82", spelling, "--socket", missing)
		require.Zero(t, code, stderr)
		require.Contains(t, out, "decoded only: no agent answers on "+missing)
		require.Contains(t, out, "switch c0:c5:20:84:6e:91, port 3, sent as 5, unit 0, vlan 100", spelling)
		require.NotContains(t, out, "A DISCOVER now")
	}
	code, out, _ := runCLI(t, "option82", "01020005", "--socket", missing, "--output", "json")
	require.Zero(t, code)
	var v console.Option82View
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	require.Equal(t, "snr-vs-hp", v.Readings[0].Profile)
	require.Nil(t, v.Now)
	_, out, _ = runCLI(t, "option82", "010401020304ff00", "--socket", missing)
	require.Contains(t, out, "cmts")
	_, out, _ = runCLI(t, "option82", "0103010203", "--socket", missing)
	require.Contains(t, out, "No ready profile reads it")
}

// Whatever is in it is shown, also where no profile reads it.
func TestOption82ShowsEverySubOption(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.sock")
	const value = "0106000400640005 0206636f72652d31 0504c6336401 060473756231 09090000197f0401020304 0a0180 0b04c6336403 0c05000200000a 1300 9701ff 9800 0702aabb 0503010203"
	code, out, stderr := runCLI(t, "option82", value, "--socket", missing)
	require.Zero(t, code, stderr)
	for _, want := range []string{
		`1 circuit-id +000400640005 +vlan 100 unit 0 port 5`, `2 remote-id +636f72652d31 +mac 63:6f:72:65:2d:31 or text "core-1"`,
		`5 link-selection +c6336401 +address 198.51.100.1`, `6 subscriber-id +73756231 +"sub1"`, `9 vendor-specific +0000197f0401020304 +enterprise 6527 0x01020304`,
		`10 flags +80 +received by unicast`, `11 server-id-override +c6336403 +address 198.51.100.3`, `12 relay-id +000200000a +0x000200000a`,
		`19 source-port +- +replies to its source port`, `151 vss +ff +global address space`, `152 vss-control +- +asks whether vss was looked at`,
		`7 +aabb +0xaabb`, `5 link-selection +010203 +\(want the 4 bytes of an address\)`,
	} {
		require.Regexp(t, `(?m)^ *`+want+` *$`, out)
	}
	_, out, _ = runCLI(t, "option82", value, "--socket", missing, "--output", "json")
	var v console.Option82View
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	require.Len(t, v.SubOptions, 13)
	require.Equal(t, "vendor-specific", v.SubOptions[4].Name)

	// No VLAN has the number 4095: no profile with a VLAN there reads it.
	_, out, _ = runCLI(t, "option82", "010600040fff0005", "--socket", missing)
	require.NotContains(t, out, "dlink")
	_, out, _ = runCLI(t, "option82", "010600040ffe0005", "--socket", missing)
	require.Contains(t, out, "port 5, unit 0, vlan 4094")
	require.NotContains(t, out, "port 5, unit 0, vlan 4095")
}

func TestOption82Mistakes(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.sock")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no bytes", []string{"option82"}, cli.ExitUsage, "usher option82 HEX"},
		{"no hexadecimal", []string{"option82", "port5"}, cli.ExitUsage, "want hexadecimal bytes"},
		{"empty", []string{"option82", ""}, cli.ExitUsage, "0 bytes"},
		{"broken", []string{"option82", "01060004006900", "--socket", missing}, cli.ExitFailure, "do not fill option 82"},
		{"relay", []string{"option82", "0102", "--giaddr", "x"}, cli.ExitUsage, "--giaddr"},
		{"mac", []string{"option82", "0102", "--mac", "x"}, cli.ExitUsage, "--mac"},
		{"suggest without agent", []string{"option82", "suggest", "--socket", missing}, cli.ExitFailure, "no agent answers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := runCLI(t, c.args...)
			require.Equal(t, c.code, code, stderr)
			require.Contains(t, stderr, c.want)
		})
	}
}

func TestOption82Profiles(t *testing.T) {
	code, out, _ := runCLI(t, "option82", "profiles")
	require.Zero(t, code)
	for _, name := range option82.Names() {
		require.Contains(t, out, name)
	}
	_, out, _ = runCLI(t, "option82", "profiles", "-o", "json")
	var list []struct{ Name, Confidence string }
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Len(t, list, len(option82.Names()))
}

const tableBegin, tableEnd = "<!-- generated: catalogue -->\n", "<!-- end: catalogue -->\n"

// catalogueTable is the table of docs/option82.md.
func catalogueTable() string {
	var b strings.Builder
	b.WriteString("| profile | for | layout | switch | port | sure |\n|---|---|---|---|---|---|\n")
	for _, e := range option82.Catalogue() {
		d, err := option82.Compile(e.Profile)
		if err != nil {
			panic(err) // a test compiles them all
		}
		p := d.Profile()
		layout := "`" + string(p.Layout) + "`"
		if p.PortIn != option82.InCircuitID {
			layout += " in " + string(p.PortIn)
		}
		for _, t := range p.Templates {
			layout += " `" + t + "`"
		}
		sw := "`" + string(p.Switch) + "`"
		for _, t := range p.SwitchTemplates {
			sw += " `" + t + "`"
		}
		port := "as sent"
		switch {
		case p.PortName != "":
			port = "name `" + p.PortName + "`"
		case p.Layout == option82.LayoutIgnore:
			port = fmt.Sprint(p.PortOffset)
		case p.PortOffset != 0:
			port = fmt.Sprintf("as sent %+d", p.PortOffset)
		case p.Layout == option82.LayoutText && (len(p.Templates) == 0 || strings.Contains(strings.Join(p.Templates, " "), "{iface}")):
			port = "name"
		}
		note := e.Vendor
		if e.Note != "" {
			note += ". " + e.Note
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", p.Name, note, layout, sw, port, p.Confidence)
	}
	return b.String()
}

func TestDocsListTheCatalogue(t *testing.T) {
	path := filepath.Join("..", "..", "..", "..", "docs", "option82.md")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), tableBegin)
	require.True(t, ok)
	table, after, ok := strings.Cut(rest, tableEnd)
	require.True(t, ok)
	if *updateDocs {
		require.NoError(t, os.WriteFile(path, []byte(before+tableBegin+catalogueTable()+tableEnd+after), 0o644))
		return
	}
	require.Equal(t, catalogueTable(), table, "run: go test ./cmd/usher/internal/show -run TestDocsListTheCatalogue -update-docs")
	for _, list := range [][]string{texts(option82.Layouts()), texts(option82.SwitchForms()), texts(option82.SubOptions())} {
		for _, word := range list {
			require.Contains(t, before+after, "`"+word+"`", "a word of the configuration that the page does not explain")
		}
	}
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}
