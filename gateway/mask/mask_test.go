package mask

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

func set(t testing.TB, names ...string) *Set {
	t.Helper()
	s, err := For(names)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// all are the names of all detectors.
func all() (names []string) {
	for _, d := range access.Detectors() {
		names = append(names, d.Name)
	}
	return names
}

// TestDetectors: what is given in ‹› is masked, and nothing else.
func TestDetectors(t *testing.T) {
	for _, c := range []struct{ names, text string }{
		{"email", "mail ‹alice@acme.test› or <‹bob.b+x@mail.acme.co.uk›>, not bob@localhost, a@b.1, @acme.test or x@y."},
		{"email", `{"mail":"‹alice@acme.test›","to":"a\n‹bob@acme.test›."}`},
		{"email", "contact=‹jörg@bücher.example›;mailto:‹carol@acme.test›?subject=x"},
		{"email", "‹alice@acme.test›,‹bob@acme.test›@carol"},
		{"card", "‹4111111111111111› ‹4111› ‹1111› ‹1111› ‹1111› ‹5500-0055-5555-5559› ‹378282246310005› ‹3782› ‹822463› ‹10005› 4111111111111112"},
		{"card", "0.4111111111111111 x4111111111111111 41111111111111111111111 411111111111 2026-11-28 05:31:57 1234567890123456"},
		{"iban", "‹DE89370400440532013000› ‹DE89› ‹3704› ‹0044› ‹0532› ‹0130› ‹00› ‹GB82WEST12345698765432› DE89370400440532013001 XX89370400440532013000"},
		{"us_ssn", "‹536-90-4399› ‹536› ‹90› ‹4399› 666-90-4399 000-12-3456 936-90-4399 536904399 1536-90-4399"},
		{"ca_sin", "‹193-456-787› ‹193456787› 193-456-788"},
		{"uk_nhs", "‹943› ‹476› ‹5919› ‹9434765919› 9434765918 1111111111"},
		{"de_idnr", "‹86095742719› ‹47› ‹036› ‹892› ‹816› 86095742718"},
		{"fr_nir", "‹255081416802538› 255081416802539"},
		{"nl_bsn", "‹111222333› 111222334"},
		{"es_dni", "‹12345678Z› ‹x1234567l› 12345678A"},
		{"it_cf", "‹RSSMRA85T10A562S› RSSMRA85T10A562T"},
		{"pl_pesel", "‹44051401359› 44051401358"},
		{"br_cpf", "‹529.982.247-25› ‹52998224725› 529.982.247-26 111.111.111-11"},
		{"in_aadhaar", "‹2341› ‹2341› ‹2346› ‹234123412346› 234123412347"},
		{"token", "GET /x?t=‹eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl› eyJub.eyJ eyJhbGciOiJIUzI1NiJ9.notjson"},
		{"token", "export GH=‹ghp_x3Jk9vQ2mZ8bL5nR7tW1yC4dF6gH0pS2aE9u›\n"},
		{"token", "aws_access_key_id = ‹AKIAQ3EGRZPFWNDXKTYM›\n"},
		{"password", "password=‹hunter2› PGPASSWORD='‹s3 cret›' passwd: \"‹abc\\def›\" password: null pwd=$PWD password=******"},
		{"password", "postgres://app:‹hunter2›@db:5432/x https://acme.test:443/@x ALTER ROLE app PASSWORD '‹it''s›'"},
		{"password", "curl -H 'Authorization: Bearer ‹abcdefgh12345678›' -H 'Authorization: Basic ‹YWxpY2U6c2VjcmV0›'"},
	} {
		want := strings.NewReplacer("‹", "", "›", "").Replace(c.text)
		got := []byte(want)
		set(t, c.names).Mask(got)
		if masked := starred(c.text); string(got) != masked {
			t.Errorf("%s\n got %s\nwant %s", c.names, got, masked)
		}
	}
}

// starred writes asterisks over what stands in ‹›.
func starred(marked string) string {
	var out strings.Builder
	for i, part := range strings.Split(marked, "‹") {
		if i == 0 {
			out.WriteString(part)
			continue
		}
		value, rest, _ := strings.Cut(part, "›")
		p := []byte(value)
		stars(p)
		out.Write(p)
		out.WriteString(rest)
	}
	return out.String()
}

func TestUnknownDetector(t *testing.T) {
	if _, err := For([]string{"email", "phone"}); err == nil || !strings.Contains(err.Error(), `"phone"`) || !strings.Contains(err.Error(), "us_ssn") {
		t.Errorf("got %v, want an error that names phone and what there is", err)
	}
	if s, err := For(nil); s != nil || err != nil {
		t.Errorf("nothing to detect: got %v, %v, want neither", s, err)
	}
	for _, name := range all() {
		set(t, name)
	}
	if a, b := set(t, "secrets"), set(t, "token", "password", "private_key"); a != b {
		t.Error("the same choice was made twice")
	}
}

// pemKey has the shape of a key, and is none.
func pemKey(kind string) string {
	line := "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
	return "-----BEGIN " + kind + "PRIVATE KEY-----\n" + strings.Repeat(line+"\n", 3) + "AbCd==\n-----END " + kind + "PRIVATE KEY-----\n"
}

func TestPrivateKeys(t *testing.T) {
	s := set(t, "private_key")
	for name, text := range map[string]string{
		"PKCS 8": pemKey(""), "RSA": pemKey("RSA "), "indented": strings.ReplaceAll(pemKey("EC "), "\n", "\n    "),
		"in JSON":   `{"key":"` + strings.ReplaceAll(pemKey(""), "\n", `\n`) + `"}`,
		"encrypted": strings.Replace(pemKey("RSA "), "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB12CD34EF56AB12CD34EF56AB12CD34\n\n", 1),
	} {
		got := []byte(text)
		if !s.Mask(got) || strings.Contains(string(got), "MII") || strings.Contains(string(got), "AbCd") {
			t.Errorf("%s: got %s", name, got)
		}
		if !strings.Contains(string(got), "-----END") || len(got) != len(text) {
			t.Errorf("%s: its frame is gone: %s", name, got)
		}
	}
	for name, text := range map[string]string{
		"a certificate":      strings.ReplaceAll(pemKey(""), "PRIVATE KEY", "CERTIFICATE"),
		"a first line alone": "key.pem:-----BEGIN RSA PRIVATE KEY-----\nbash-5.2$ ls\nbin  etc  usr\nbash-5.2$ exit\n",
	} {
		got := []byte(text)
		if s.Mask(got) {
			t.Errorf("%s was masked: %s", name, got)
		}
	}
}
