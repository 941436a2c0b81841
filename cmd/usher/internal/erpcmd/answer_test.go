package erpcmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/userside"
)

// obj makes an object in the order given.
func obj(pairs ...any) object {
	var out object
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, userside.Entry[any]{Key: fmt.Sprint(pairs[i]), Value: pairs[i+1]})
	}
	return out
}

func TestLayOut(t *testing.T) {
	n := func(s string) json.Number { return json.Number(s) }
	for _, c := range []struct {
		name string
		key  string
		data any
		want string
	}{
		{"nothing", "", nil, ""},
		{"empty list", "", []any{}, ""},
		{"empty object", "", object{}, ""},
		{"number", "", n("7"), "7\n"},
		{"address as number", "ip", "3221225985", "192.0.2.1\n"},
		{"address as a signed number", "userip", n("-1073741311"), "192.0.2.1\n"},
		{"addresses as signed keys", "", obj("id", n("1"), "ip_mac", obj("-1073741311", obj("ip", "-1073741311", "mac", "00005e005301"))), "id      1\nip_mac  192.0.2.1 00:00:5e:00:53:01\n"},
		{"ids", "", []any{n("101"), n("102")}, "101\n102\n"},
		{"record", "", obj("id", n("1001"), "full_name", "A &quot;B&quot; &amp; C", "none", nil, "empty", "", "list", []any{},
			"state_id", n("1"), "mac", "00005E005301", "flag", true), strings.Join([]string{
			"id         1001", `full_name  A "B" & C`, "state_id   1 pause", "mac        00:00:5e:00:53:01", "flag       true\n"}, "\n")},
		{"nested", "", obj("id", n("1"), "ip_mac", obj("3221225985", obj("ip", "3221225985", "mac", "00005e005301"), "0", obj("ip", "0", "ip_net", "198.51.100.8/29")),
			"tariff", obj("current", []any{obj("id", "12")}, "new", []any{}), "phone", []any{obj("number", "1", "flag_main", n("1")), obj("number", "")}), strings.Join([]string{
			"id      1", "ip_mac  192.0.2.1 00:00:5e:00:53:01; 0 198.51.100.8/29", "tariff  current id 12", "phone   number 1, flag_main 1\n"}, "\n")},
		{"rows", "", []any{obj("comment", "x<br>y", "id", n("1"), "void", ""), obj("id", n("22"), "comment", nil, "void", nil, "more", false)},
			"id  comment  more\n1   x y\n22           false\n"},
		{"map by id", "", obj("5", obj("id", n("5"), "name", "five"), "6", obj("id", "6", "name", "six")), "id  name\n5   five\n6   six\n"},
		{"map by another key", "", obj("1001", []any{obj("object_id", n("5")), obj("object_id", n("6"))}, "1002", obj("object_id", n("7"))),
			"key   object_id\n1001  5\n1001  6\n1002  7\n"},
		{"mixed list", "", []any{obj("id", n("1")), "odd"}, "id  value\n1\n    odd\n"},
		{"terminal tricks", "", obj("name\x1b[2J", "\x1b]0;title\a\r\nnext\u202e"), `name\x1b[2J  \x1b]0;title\a next\u202e` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, layOut(c.key, c.data).write(&b, 0))
			require.Equal(t, c.want, b.String())
		})
	}
}

func TestWideTables(t *testing.T) {
	row := object{}
	for i := range 30 {
		row = append(row, userside.Entry[any]{Key: fmt.Sprintf("field%d", i), Value: strings.Repeat("ї", 80)})
	}
	row = append(row, userside.Entry[any]{Key: "id", Value: json.Number("1")})
	s := layOut("", []any{row})
	require.Equal(t, 31, s.total)
	require.Len(t, s.head, maxColumns)
	require.Equal(t, "id", s.head[0], "what people look for comes first")
	var b bytes.Buffer
	require.NoError(t, s.write(&b, 40))
	for line := range strings.Lines(b.String()) {
		require.LessOrEqual(t, len([]rune(strings.TrimSuffix(line, "\n"))), 40)
	}
	require.Contains(t, b.String(), "…")
}

func TestDecodedKeepsOrderAndResolvesEntities(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, printDecoded(&b, obj("z", "a &amp; b &lt;c&gt;", "a", []any{obj("x", json.Number("1.50"))})))
	require.Equal(t, "{\n  \"z\": \"a & b <c>\",\n  \"a\": [\n    {\n      \"x\": 1.50\n    }\n  ]\n}\n", b.String())
}
