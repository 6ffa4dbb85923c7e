"""Pickled tables are read without pandas, and nothing in them is run."""

import base64
import copyreg
import io
import os
import pickle
import sys
import zlib

import numpy as np
import pytest
from pandas_files import pickled

from ppl_fast.data.sets.pickles import read_table

NAMES = ["a.png", "b.png"]
VALUES = [np.array([[162.0, 69.0], [10.0, 4.0], [207.0, 233.0]]), np.array([[155.0, 186.0], [139.0, 238.0], [-1, -1]])]
# The table of both, written by DataFrame.to_pickle(protocol=...): {(pandas, protocol): file, compressed}.
WRITTEN = {
    ("1.5.3", 2): (
        "c-nPS+fvj(5X~+ZCEid`yo-t&ysV<4s3-`CLS&KgmKQ2avco1tlHHS;h*Y^%_`ojwg`eObSfwAPlSx(zOY<<@lj%OEd-}{q(XG>{LV3xp"
        "#jLav(~#-YRL~jaK^yvlLIXv^>eMvN4y!Rbc4hdHU~xnPUJ7YMt1RaFWKeTg=d+!T&UUyR_zvHR*X<;#`|fJMY$r|7(d9--SYOX@!z2(s"
        "jbpm5+c9%%5f^dd3LV{9lrAyVDfXD!Cic3vTdOda>nutg9X(b-R_s8xx}^=M@S|buYhpjafff!D95T#;Su~4H^yZKiv0j&%hpnQ_SQy2T"
        "?X4D$67(5nheG>|W94#r?w9=3VvY+Ocea<%Z&+ROoR;cQ6(^MMDF39_?WqD!d6M-s!I_k`BV|47Wkf5ZIF}NgCm3iGjp4#>B2D0;v+ea*"
        "!&?4LR3<XJm|1Nwx4oJD`PI*yfp7wsJlXjm!DWFfPP?S5X-Njb(4Ug7c>^iONSkBX%{i)>U8XtqMwpZR{PyGfj)&_h&kcf`0wsqD+;Uvo"
        "b`oFCGO}%*2fiyW__nFZi!Zb=OmN36ws4o=-X=ztaNqb#Tov|-@sdM1)9r|@*|X^%9S{B=mPd>>@Gui?MXDK(+D$)Bn;s*0qNcxzr(U0&"
        "-?(A*q@(bq8Y3xuOsE-tq(Q>)Og1v<C@gh0RZg0iCV1}syNsAdRi=}4&5N07;DzB$l@%x#G!}SiY6_8yS{<`yG2gH{=FEb`Hwj*`Cguss"
        "+0&ES#Dc0aZAd*-yjFWVWP++L7neXXAqo+5ylLRAQop?t&??8f2Hso!>2VO$*0^0s>T)1dFgu_Q3phS(@x&?p2JXK;o&"
    ),
    ("1.5.3", 4): (
        "c-nPR(Q4E{6y0PuYDKK2s1-qc5Uel3$37Ih*dl0f#lDy6O){H=PG-Z*#JXTXA6i?Ow_d+TKgCb*5A@DtgRRs+=G>Xwd*<Gg^Lg}bXE^YW"
        "U1>n(pyO<&csx~5bF@o4VBnRH&+*w8Ji>K5Vs)X=KDwA*NyC){q2n4P6kKVvw_b`_cJQ{_Q@Opjs9>T>_1_Y-%dC}6l^qDqQdi@W@5;7r"
        "<{f+83R8hnFeg@~cs7&Ts5Ub$G4hFMuM@XVImcvhjN3tqUvU@LlOPF`@C3_c8|7x+xJhjIZUfIwyYE9Ae8S0O^5!=^eo3|rre}LJYXos4"
        "3%VrrSl%vI9C^9gQx84$nhmFy2si&B95}-5=U(V>KJM^+hl3{zywl;&s>8?i7^&=kcRua;_Ok_F(cwOH_@iF%{`%gd<Ky(&8);jSrjo>u"
        "w5T%fRU@GScS#bu^%$K3YnOj>&OdS;r=ZCkH<{#z?6o_i@^aHgee7+LlXb38ETqjtFYeN`qCYOZ(V`C^T8_TCkw2QWCsa|sun(^4K!Ge="
        "3%d?4Tw5j+n#h1MG>;u=GizuZ7jOy!&&l0FHYPKW!(E%b+gZ&G_`dh3B`}73e1!HIn+hm=cprqA9cq@h4ao+EGXW_l6QAlfjsF19JT}<"
    ),
    ("2.3.3", 5): (
        "c-n1K-D=c86yEG^)T&rZK`Vj?3a$vjOD~EpRs;=3?0uP@B$FSSOv22>x?n*sT3eXA9(^5s6d%Di&@+==-4^F!zB7~a^PMwaKKWl^G;qtT"
        "wIEVZLDEPbWD;tQX5|HFc<Jm@eE1m;aAL-+&Lx^V%kHJnTneaEP=kP+ONHj@^QuYq-t=b*H#g=HtSV#mF9gjh>qJ{7dlhG~jd9MRtJ_(?"
        "T>84JbO}<zjM6g6lSU{lyF^=0-+7|BNXebcDTaeX-11`lg4;L=y>J)~kFZ!ZeyV4!ZN&`VKEadY{`<&yA2Eue*S~4GEqtaiKG~sWeF$2S"
        "Q<1pG^<`RQb6F;6uCPotb=+l{>vZz%@nC69(`k?IdK}!J<MkeYmOb9Br&w&5VRnYv<~eEuq85&9L&n=eO>V`#a|L&kdBMELUFh*gJum$0"
        "`vS3e&?hS%*;Jg8n@e$5(!2$|jIXLP;clWdM9-26hju?iJDrWQ8c6vEu7Vg8Dd#d1e4o9tcNAW18h>Fs4W*<jEUp!6_Nj{XzYj%++ivhH"
        "SxIsbPKEw^s5;)08@sEhJF<;GHMjo9K!V6Eg>8#VWs5MPjx<P3{g|=RO-t=qgOlO8oZN1taS{s2-_l(C3asWD9Pb^X1X`2G571m-Sp~T>"
        "Z$ecy`--JqOJf7gSp_jCg&(Uf4*mdrQ9t1"
    ),
}


def check(table) -> None:
    assert table["file_name"] == NAMES
    for found, expected in zip(table["value"], VALUES, strict=True):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)


def write(path, content) -> None:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))


@pytest.mark.parametrize("writer", WRITTEN)
def test_files_of_pandas(tmp_path, writer, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # to import it would raise
    write(tmp_path / "table.pkl", zlib.decompress(base64.b85decode(WRITTEN[writer])))
    check(read_table(tmp_path / "table.pkl", ("file_name", "value")))


def test_files_of_pandas_before_1_3(tmp_path):
    """The blocks are then in the manager's state, with an Index of its own type for every array."""
    for module in ("pandas.core.internals", "pandas.core.internals.managers"):
        write(tmp_path / "table.pkl", pickled({"file_name": NAMES, "value": VALUES}, module))
        check(read_table(tmp_path / "table.pkl", ("file_name", "value")))


def test_plain_containers(tmp_path):
    write(tmp_path / "table.pkl", {"file_name": NAMES, "value": VALUES})
    check(read_table(tmp_path / "table.pkl", ("file_name", "value")))


class Evil:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, np.load, copyreg.add_extension])
def test_a_hostile_pickle_is_refused_by_name_and_not_run(tmp_path, function):
    witness = tmp_path / "witness"
    write(tmp_path / "table.pkl", {"file_name": Evil(function, f"touch {witness}"), "value": VALUES})
    name = f"{function.__module__}.{function.__name__}"
    with pytest.raises(ValueError, match=f"table.pkl: refused without running anything: it asks for {name}$"):
        read_table(tmp_path / "table.pkl", ("file_name", "value"))
    assert not witness.exists()


def test_admitted_names_are_not_called_either(tmp_path):
    """An array of 2**62 elements would take all memory, if numpy.ndarray were called."""
    huge = pickle.dumps({"file_name": Evil(np.ndarray, (2**62,)), "value": []})
    write(tmp_path / "table.pkl", huge)
    with pytest.raises(ValueError, match="it has a ndarray where a value or an array should be"):
        read_table(tmp_path / "table.pkl", ("file_name", "value"))


@pytest.mark.parametrize(
    "content, reason",
    [
        (pickle.dumps({"file_name": NAMES})[:-9], "truncated, or no pickled table"),
        (b"no pickle", "truncated, or no pickled table"),
        (pickle.dumps([1, 2]), "it holds a list instead of a DataFrame"),
        (pickle.dumps({"file_name": NAMES}), "it has no column 'value', only 'file_name'"),
        (pickle.dumps({"file_name": NAMES, "value": VALUES[:1]}), "its columns differ in length"),
        (b"\x80\x02K\x01r\xff\xff\xff\x7f.", "it numbers more objects than it has"),
        (b"\x80\x02\x82\x01.", "it has the opcode EXT1"),
        (b"\x80\x02Pname\n.", "it has the opcode PERSID"),
    ],
)
def test_other_content_is_refused_in_one_sentence(tmp_path, content, reason):
    write(tmp_path / "table.pkl", content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_table(tmp_path / "table.pkl", ("file_name", "value"))
    assert str(tmp_path / "table.pkl") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 2), (2**40, 2)])
def test_an_array_with_fewer_bytes_than_its_shape_is_refused(tmp_path, shape):
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=2)
    pickler.dispatch_table = {np.ndarray: lambda a: (*a.__reduce__()[:2], (1, shape, a.dtype, False, a.tobytes()))}
    pickler.dump({"file_name": NAMES[:1], "value": [VALUES[0]]})
    write(tmp_path / "table.pkl", file.getvalue())
    with pytest.raises(ValueError, match="an array of shape .* does not have as many bytes"):
        read_table(tmp_path / "table.pkl", ("file_name", "value"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="table.pkl: no such file"):
        read_table(tmp_path / "table.pkl", ("file_name", "value"))


def laughing(levels: int, end: bytes) -> bytes:
    """A tuple that holds another twice, and so on, as a key: its hash takes two to the power of `levels` steps."""
    return b"\x80\x02}(K\x01" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(levels)) + end


def test_tuples_that_unfold_without_end_are_refused(tmp_path):
    path = tmp_path / "table.pkl"
    path.write_bytes(laughing(60, b"K\x01u."))
    with pytest.raises(
        ValueError, match="refused without running anything: it has a tuple of more than 100000 objects"
    ):
        read_table(path, ("value",))
    path.write_bytes(laughing(9, b"K\x01u."))
    with pytest.raises(ValueError, match="it has no column 'value', only"):
        read_table(path, ("value",))
    path.write_bytes(b"\x80\x02\x86.")
    with pytest.raises(ValueError, match="it takes more from its stack than there is"):
        read_table(path, ("value",))
