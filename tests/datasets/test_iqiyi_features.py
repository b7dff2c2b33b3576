from __future__ import annotations

import base64
import contextlib
import os
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.datasets import inert_pickle, iqiyi_features
from vidface.datasets.iqiyi_features import VideoFeatures, feature_videos, iter_features

# What Python 2.7.18 with NumPy 1.16.6 wrote (zlib, base 85) for `python2_value()`.
PYTHON2 = {
    "cPickle, protocol 0": (
        b"c-oCq%Wm5+5WMe?NSCO5=-ITf4ut>%fe$s%Tm%Hv!$JbvA!NCb(Vy>-"
        b"G%7WTf*h76srAn6%+hZ(r>*y!2L~N`qy_nVEzJ_*nt7!Bf>9x;kSq`p6(OTRN2CfCnDvI6TU8&=2Ym_Zm%a@S=l$"
        b"@c`d(e=v2W{_<7w#6^*}l%-"
        b"{sM<ao=@9{u%|hUggp7Q>Qp`L`cImvl%YBC7qGK^>)G|WFrHqoFPww<2R2so6Y)$lMPg>){NmpIkI-"
        b"u#pT$9w|{cfuarVx-1M8;#<+OX8LnQn)`52SiYJ#7(GE-;;J5-"
        b"7FUP7X$4uSgkmA55<nTk}=u^n?d&s~8rfTsk&~R2W!{oa|KEYlIYk6X9<*8jW{7XGD#<-"
        b"Bdv+j)b?0rbVXOPZ_aAt%MpD=>CNZD#SFqZ$@<ntWo)xt=fYPDBA*usJi*i-p@<>-"
        b"cJ!+v#K(>d2@nd_YA|M4Sth2sT%lB+%_G)Xj{Rgqp{@0KL`T8=#VQjWDsuv5{)WSxDLnSGYbuAF`)Wadc<>fXv=R"
        b"kp;WB(=so-^+V!Ad3Q>xi(L8ZDjbdHoFF~TM7plIbJbc2br5;b}z~dv}*{;XlZ9rrgRGa0u93^cK"
    ),
    "cPickle, protocol 1": (
        b"c-"
        b"pHiWYh>{D>Kx~Eifr$iY;W;h%IE%2xT<TaA$x5cLzAb&H>7Bfryk8vbx(pfXeRw0%0WQmF5;y>LuqFrRwFD=9FY6"
        b"78NB{a>W;=Cg<lBmlTyImv9xbX+V^5<)uKR3)wZi8A?JKlS+aLIW)W(HN06$ph{9oDhpD%3OO}GnbM5B8N3;RO1L"
        b"z<nL`<E{QUg9{sRG+0P0WjG%(-_<>0eVH@jk8?NE}G8e7N>^p1swyMqQ1-"
        b"r>RYP6nGs29n!&p>E6If>>2ye{uIL>l+)uR`HQw6+c0%1kkLSy>61(9D|FtK&w(inaYd{1!D_^Vhe>eLU|J74Gat"
        b"njg0lO3epQj(998qnF9_%6KDvE;R`_l28ITEpo@U6b^ziAU`XPK*5c&EoWvroLUD}@u}~JEa(kfJ5*a`)*ftBOZI"
        b"U=_3*~@#-NgZ@ND9s2(qM-(!krF_d>OD|b~qy6N?iYxxs+)*Fqjg7!DLb>8(SzBTPUv)!3ea-Jho6lBLn8z29RqN"
        b"y_tNBeYm_?QoR{r4$p)+TnVSc|Ne&npd#hiLKO`}eA<72G7iAv-~IxGkqUN_QK4#VsU85=2lGD"
    ),
    "cPickle, protocol 2": (
        b"c-"
        b"m`Vsx4&H2xTiX)XOa}DP)Q*WY&l+WYGv^G|+HofC6_1IK$2X%5Z^*loYbM+dqKH?*9T|B<Gdp7F6mb=NF~w<(B4@"
        b"WF{6BC02697o{fW=M|R}l_r;P6|zB8apk2zWDD878CpXbliGs{IW)W(y;)kJ3Q|fc3sSiXIYXJ!jJz4V8G#D8G`y"
        b"KZ8EyRh{Jj1H0hsV+C`sxJ<>0eVH@jk8?NE}G8e7N>^oNCpyMqQ1{@}s%M+RF4!cn{sM`dsUEvc}-"
        b"xO<lMjSXN+_(-sXpMWI-NS4fAH_2>{!9`o3C8?oIWyXbqv4ujhg~A%4Jc;oJ1_p*k#(G%=>4hRFCWt~!00ox`G`P"
        b"fY2A2Q>LxVlg5kQAJ0C58_*l<K%adKi#Vi8xNc!pRg3sALvTTr1yhB(+B3#dJkIP3}KfOyr#0jNm|#ktZT=K>wvm"
        b"Vq3<GGK%3u*I*Hxc(_~DbsLZs3ZbI#iUR+woop%P+lW~5om*XY@vci2GorWAU7&{Gj%aCd$Xi^GeTUO33IIyPS^h"
        b"Z4*@{!%CUti8i+`<{{UqifJL(X1qdS*>>Q&))!0%!00u<xnE"
    ),
    "pickle, protocol 0": (
        b"c-"
        b"n=OO>f#j5QgvbN8l27zdxF`aHx<hMI0KbxgbT00V@>{i;v2vf4=kD4sk%Vhh48{XFbonGwb1^67)FuEwfE!22@EJ"
        b"t}BH}vstjkP#R7|CTOBCX^|;Q69dbkvXpoa^PPk}72D&cI%UP{ZkcV4>%&Xh?b3;!cgx~+yFcuX#ephE!`6?si*~"
        b">AG|chAz)|NMHS$^t`cX+H$}tQqin@b~!>L*_uBPGRV5LBAh`+$D>}GM0qvS~93pPDXr_=mSQZo=q2Abyr$<J!B9"
        b"F=ZXFU<X)F}x9737V$_H6;54HY)`wq`IMn(wAbCj8ML1rVN$McLAqdFDvD#WZD*{9x;cU)${qRj_ICX0>7XTD!?~"
        b"(R9aB^A0RFN38YmEq%{L+(*x4B2gDeRl9v2btWhik0KYPjcJTE8+H(tOm_pM!5wpSR^elvsN@u^S63rwpAWR2g0A"
        b"czN1`us|(U``a%WFJ*L$AChUX|C1UU@}3f*8HO2r)h{#(f`jfJGduIJFxMy)V)_?bwkCOA~rw#v`0Z1{RgJjx%n&"
        b"x@6Ev)}NEH0Zy@(j1yPMI7#z<A|J<h5IY4wsOZdv#?H1HJBMB0Y0RGnqzh-"
        b"6af@6$lX+Y}FFUetyy?{ynb&VJf1cISf11@r^1Mp+2?r3t+qVuu9lb+uc;C!{etI@VLPrPg=xaHfs`0r1q@Wln@I"
        b"A}9^B?pBFF4th%a0nrK;!WKKL{v9=>HGG_5UD*R^!!z$LiL=S!fv{PLvIJRMcHF$@h*gn`$1-"
        b"T}*A}kTz=M91ZQWzjaw$Vg"
    ),
    "pickle, protocol 1": (
        b"c-oDUNpI6o6oun7gkVYuW1-"
        b"CRV@jQ&Nod;GKp?aZ0Unr^!Blo?>Y^siabGGTgp}XF68H^>eHXB1MI{z2`3Wr8qT=}3WD$Y-BwJT+INv=-"
        b"_ccO9i>@XU^=1Zwjxf<NKr}%@gp@=6Dl31BqT&}NzQeGkEdTINKmFoGt<kDC+lkt;V<qaXCAMfdj?ot99ILk6SYb"
        b"}9#zaI3za}>3`7yQ<)zyn>f{ASmBE@#13Pg=C4Ek5+S-"
        b"WY8*g>@L^Av{EkSZ|jq=*xBKocggt6Hs2Z@A0*b=7v8Q<5ZVu_1XO`>pUw!5)Uarln(_Ych}hq^yulm>ljmX-"
        b"A38J3e5$?H;5U3EDkm$2s+-"
        b"yuS9f@cknWGaTtsj}m*c$YcLQ9`7PgP@D{qrvl`=4{x&XrS(aiW;kP7mKI)3<E)NzItbAQjX6n@lBsm!MRNh?dx9"
        b"6bf)^<+1%j7tFXappJmpae$xk`imvV}y91n#$vfHQYMRC85f;2<M{Kq(~)Qly=5iv$=NsG8oWMmm~6nWd-"
        b"^5}V7;q-Bef={35qfeSzj0aRwP-KuPl%BJzU1!%Qu6xdeuD6oyPtXmnev_i?sTXmpPkqXtpz-"
        b"0+FS(Ji8B8;%re(OnW>C>_TSt}53NAf|J38(XJ22FdagTvg+*iYubVXDnmMR3^7V~((=^DjD-"
        b"`h+deb)8%dxI}LVt7pPM8{Lo8xHxWUwjURN&d<U%WE<PUB|Ol;tz_p8yE"
    ),
    "pickle, protocol 2": (
        b"c-"
        b"oDUOK;Oa6ou_1gb+#z&q8^>hga&nL(|p<0)ZL=449UOsqEC$MNOKMIu#K@%BHDc$rAVth&>Bfv!W6Umiz=3Y*86|"
        b"99Tq^I+Cp`&&>VKIlk?{O9(^@FDByEdK#jR0MQX7nkXSeN`k*i%D-"
        b"Yv@rxq=;$TBb{^{?2{>_U@ty!(N;+6S^6|XkuoLQsMFj~>6hE<ubEjW#4#fc)!Pep6fd>0#4VF?jUG_h$JQHsq(7"
        b"1huZ`uu~_POEN3u|*3!O`=~FRB;(wDPlwoYT^jCmCNPvRkpmB%9L$4Uultkc_#b4@It{32Rltm$1dhBkKLrCkaf5"
        b"l=yhj@ZBObRo9Wz3G3e{uXU7=txxDh}ZQ;j9?00a$<sBsUdSQpwh8=ccM<|Z^uwx$V-"
        b"G?{X_tMHJjypJET9y`AOyQ)CQ#uII`iv<_k`l>O{8@blr@O7rxUJ4ooby|qx7|q7i1SE?C?r49L{Fqi7HLcn+A@>"
        b"I<SXoHD@Zv=n``{^g^Dp}G@{7Zk``h&WMn(YQRMB6$Iasc=MGa8eC|jOchuA(JdmP-"
        b"u?}PkrR(RS>*o^1W!DdL)IrhaLvn?8zDiN@I*;L6Pv`6IkPHtDea#JKCNS<mH7$eXn8pnqH+7WBq{y&2+|qHI*uI"
        b"Unj5{4rio0sywHQ=GmMU^Xvw7U(SdHSoZ)l<iJIM_FS>+24I(SI&NXKLHe*)xRe(|L{G4eNFSf0QnbRAEc@xSUO7"
        b";*"
    ),
}
NORMAL = np.array(  # the first of numpy.random.RandomState(0).standard_normal()
    [
        [1.764052, 0.400157, 0.978738, 2.240893],
        [1.867558, -0.977278, 0.950088, -0.151357],
        [-0.103219, 0.410599, 0.144044, 1.454274],
        [0.761038, 0.121675, 0.443863, 0.333674],
    ],
    dtype=np.float16,
)
ROWS = {
    "v1": NORMAL[:3].tolist(),
    "v3": NORMAL[3:].tolist(),
    "v4": [[0.5, 1.0, -2.0, 0.25]],
    "v2": [],
}


class Python2:
    """Writes protocol 2 as cPickle of Python 2 does, in pieces; `pure`, as pickle does."""

    def __init__(self, pure: bool = False) -> None:
        self.pure = pure
        self.n_stored = 0
        self.known: dict[str, int] = {}

    def put(self, name: str = "") -> bytes:
        self.n_stored += 1
        if name:
            self.known[name] = self.n_stored
        k = self.n_stored
        return b"q" + bytes([k]) if k < 256 else b"r" + struct.pack("<I", k)

    def get(self, name: str) -> bytes:
        k = self.known[name]
        return b"h" + bytes([k]) if k < 256 else b"j" + struct.pack("<I", k)

    def rare(self) -> bytes:
        return self.put() if self.pure else b""

    def string(self, data: bytes) -> bytes:
        short = len(data) < 256
        head = b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))
        return head + data + self.rare()

    def name(self, module: str, name: str) -> bytes:
        if name in self.known:
            return self.get(name)
        return f"c{module}\n{name}\n".encode() + self.put(name)

    def dtype(self) -> bytes:
        if "f2" in self.known:
            return self.get("f2")
        text = self.name("numpy", "dtype") + b"U\x02f2K\x00K\x01\x87R" + self.put("f2")
        return text + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"

    def array(self, row: np.ndarray) -> bytes:
        made = self.name("numpy.core.multiarray", "_reconstruct") + self.name("numpy", "ndarray")
        made += b"K\x00\x85" + self.string(b"b") + b"\x87" + self.rare() + b"R" + self.put()
        made += b"(K\x01M" + struct.pack("<H", len(row)) + b"\x85" + self.rare() + self.dtype()
        return made + b"\x89" + self.string(row.tobytes()) + b"t" + self.rare() + b"b"

    def face(self, frame: bytes, box: Iterable[float], score: float, row: np.ndarray) -> bytes:
        numbers = [b"G" + struct.pack(">d", x) for x in (*box, score, -score)]
        text = b"]" + self.put() + b"(" + self.string(frame) + b"("
        text += b"".join(numbers[:4]) + b"t" + self.put() + b"".join(numbers[4:])
        return text + self.array(row) + b"e"

    def video(
        self, name: bytes, faces: list[tuple[bytes, list[float], float, np.ndarray]]
    ) -> bytes:
        text = self.string(name) + b"]" + self.put()
        if len(faces) == 1:
            return text + self.face(*faces[0]) + b"a"
        for start in range(0, len(faces), 1000):
            batch = faces[start : start + 1000]
            text += b"(" + b"".join(self.face(*face) for face in batch) + b"e"
        return text

    def file(self, videos: Iterable[tuple[bytes, list[Any]]]) -> Iterator[bytes]:
        yield b"\x80\x02}" + self.put() + b"("
        for k, (name, faces) in enumerate(videos):
            yield (b"u(" if k and k % 1000 == 0 else b"") + self.video(name, faces)
        yield b"u."


def made_video(k: int, n: int, d: int = 512) -> tuple[bytes, list[Any]]:
    rng = np.random.default_rng(k)
    faces = [
        (str(3 * i).encode(), rng.uniform(0, 300, 4).tolist(), 0.5, rng.normal(size=d))
        for i in range(n)
    ]
    return b"IQIYI_VID_TRAIN_%07d.mp4" % k, [(*f[:3], f[3].astype(np.float16)) for f in faces]


def write_python2(path: Path, n_videos: int, n_faces: int, pure: bool = False) -> None:
    with path.open("wb") as file:
        file.writelines(Python2(pure).file(made_video(k, n_faces) for k in range(n_videos)))


def face(d: int = 4, **changes: Any) -> list[Any]:
    values = {
        "frame": b"12",
        "box": tuple(map(float, range(1, 5))),  # each face's own: a constant would be shared
        "det_score": 0.75,
        "quality": -5.0,
        "feature": np.arange(d, dtype=np.float16),
    }
    return list((values | changes).values())


def read(path: Path, content: Any, protocol: int = 4) -> list[VideoFeatures]:
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
    path.write_bytes(data)
    return list(iter_features(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "face_val_v2.pickle"


def unpickled(content: bytes) -> dict[str, list[Any]]:
    """The oracle: the standard unpickler, on files made here."""
    loaded = pickle.loads(content, encoding="bytes")
    names = [k if isinstance(k, str) else k.decode() for k in loaded]
    return {n.removesuffix(".mp4"): v for n, v in zip(names, loaded.values(), strict=True)}


def check_against_oracle(videos: list[VideoFeatures], content: bytes) -> None:
    expected = unpickled(content)
    assert [video.video for video in videos] == list(expected)
    for video in videos:
        faces = expected[video.video]
        assert len(video.frames) == len(faces)
        for i, (frame, box, score, quality, feature) in enumerate(faces):
            text = frame.decode() if isinstance(frame, bytes) else str(frame)
            assert video.frames[i] == text
            wanted = np.asarray(box, np.float64).ravel().astype(np.float32)
            assert np.array_equal(video.boxes[i], wanted)
            assert video.det_scores[i] == np.float32(score)
            assert video.qualities[i] == np.float32(quality)
            row = np.asarray(feature).ravel()
            assert np.array_equal(video.features[i], row.astype(video.features.dtype))


@pytest.mark.parametrize("writer", PYTHON2)
def test_files_that_python_2_wrote(writer: str, path: Path) -> None:
    content = zlib.decompress(base64.b85decode(PYTHON2[writer]))
    videos = read(path, content)
    assert {video.video: video.features.tolist() for video in videos} == ROWS
    assert feature_videos(path) == [("v1", 3), ("v3", 1), ("v4", 1), ("v2", 0)]
    by_name = {video.video: video for video in videos}
    first = by_name["v1"]
    assert first.frames == ("0", "8", "8")
    assert first.frame_index.tolist() == [0, 8, 8]
    assert first.boxes.tolist() == [[0, 2, 30.25, 40], [12, 2, 30.25, 40], [12, 2, 30.25, 40]]
    assert first.det_scores.tolist() == [0.5] * 3
    assert first.qualities.tolist() == [-1.25] * 3
    assert first.features.dtype == np.float16
    third = by_name["v3"]  # arrays and scalars of NumPy, float16 of the other byte order
    assert (third.frames, third.frame_index.tolist()) == (("a_000123.jpg",), [123])
    assert third.boxes.tolist() == [[1, 2, 3, 4]]
    assert (third.det_scores.tolist(), third.qualities.tolist()) == ([0.75], [40])
    assert third.features.dtype == np.float16
    fourth = by_name["v4"]  # lists, whole numbers
    assert fourth.boxes.tolist() == [[1, 2, 3, 4]]
    assert (fourth.det_scores.tolist(), fourth.qualities.tolist()) == ([1], [-3])
    assert fourth.features.dtype == np.float32
    assert str(by_name["v2"]) == (
        "VideoFeatures(v2: 0 faces; boxes (0, 4), det_scores, qualities (0,) float32, "
        "features (0, 0) float16)"
    )


@pytest.mark.parametrize("pure", [False, True])
def test_the_writer_of_these_tests_writes_as_python_2(pure: bool, path: Path) -> None:
    write_python2(path, n_videos=3, n_faces=2, pure=pure)
    content = path.read_bytes()
    check_against_oracle(list(iter_features(path)), content)


def variants() -> dict[str, Any]:
    half = np.arange(4, dtype=np.float16)
    return {
        "plain": {b"a.mp4": [face(), face(frame=b"13", quality=9.5)], b"b": []},
        "text": {"a.mp4": [face(frame="12")], "b": [face(frame=12)]},
        "one row": {b"a": [face(feature=half[None]), face(feature=half[:, None])]},
        "big endian": {b"a": [face(feature=half.astype(">f2"))]},
        "read-only": {b"a": [face(feature=np.frombuffer(half.tobytes(), np.float16))]},
        "strided": {b"a": [face(feature=np.arange(8, dtype=np.float16)[::2])]},
        "single": {b"a": [face(feature=half.astype(np.float32))]},
        "double": {b"a": [face(feature=half.astype(">f8") / 3)]},
        "whole": {b"a": [face(feature=half.astype(np.int16))]},
        "lists": {b"a": [face(feature=[0.5, 1, 2.0, 3.0]), face(feature=(1.0, 2.0, 3.0, 4.0))]},
        "mixed": {b"a": [face(feature=[0.5, 1, 2.0, 3.0]), face(), face(feature=half[None])]},
        "halves within": {b"a": [face(feature=list(half))]},
        "boxes": {
            b"a": [
                face(box=np.array([1, 2, 3, 4], kind))
                for kind in ("<f4", ">f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", ">u8")
            ]
        },
        "equal boxes": {b"a": [face(box=np.array([1, 2, 3, k], "i4")) for k in range(3)]},
        "whole boxes": {b"a": [face(box=[1, 2, 3, 4]), face(box=(1, 2.5, 3, 4))]},
        "scalars": {
            b"a": [
                face(box=[np.float32(0.1), np.int16(2), 3, 4.0], det_score=np.float16(0.3)),
                face(det_score=np.float64(0.1), quality=np.int32(-7)),
                face(det_score=1, quality=np.uint8(200)),
            ]
        },
        "arrays of one": {b"a": [face(det_score=np.array([0.5]), quality=np.array(2.0))]},
        "tuples": {b"a": (tuple(face()),)},
        "one face": {b"v%d" % k: [face()] for k in range(5)},
        "empty bytes": {b"a": [face(frame=b"")]},
        "many": {b"v%d" % k: [face(frame=b"%d" % k)] * (k % 4) for k in range(2500)},
        "a long one": {b"a": [face(frame=b"%d" % k) for k in range(2500)], b"b": [face()]},
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("variant", variants())
def test_files_that_python_3_writes(variant: str, protocol: int, path: Path) -> None:
    content = pickle.dumps(variants()[variant], protocol=protocol)
    videos = read(path, content)
    check_against_oracle(videos, content)
    halves = variant not in ("single", "double", "whole", "lists", "mixed", "halves within")
    for video in videos:
        assert video.features.dtype == (np.float16 if halves else np.float32)
    assert feature_videos(path) == [(video.video, len(video.frames)) for video in videos]


def test_a_dict_written_in_one_piece(path: Path) -> None:
    videos = read(path, b"(U\x01a]U\x01b]d.")  # DICT with its items
    assert [video.video for video in videos] == ["a", "b"]
    assert read(path, b"}.") == []
    assert read(path, b"\x80\x02}q\x00.and what follows") == []


@pytest.mark.parametrize(
    ("frame", "number"),
    [
        (b"12", 12),
        (b"007", 7),
        ("shot2_000123.jpg", 123),
        (b"f5.mp4", 5),
        (b"12.5", 5),
        (b"none", 1),
        (b"", 1),
        (2**31 - 1, 2**31 - 1),
        (2**31, 1),
        (b"9" * 200, 1),
        (-3, 3),
    ],
)
def test_frame_numbers(frame: Any, number: int, path: Path) -> None:
    (video,) = read(path, {b"a": [face(), face(frame=frame)]})
    assert video.frame_index.tolist() == [12, number]  # without one: its place, 1
    assert video.frame_index.dtype == np.int32


def test_values_that_are_not_finite_stay(path: Path) -> None:
    strange = np.array([np.nan, np.inf, -np.inf, 0], np.float16)
    (video,) = read(path, {b"a": [face(feature=strange, quality=float("nan"), det_score=1e300)]})
    assert np.array_equal(video.features[0], strange, equal_nan=True)
    assert np.isnan(video.qualities[0])
    assert video.det_scores[0] == np.inf


SHARED: dict[str, Callable[[], Any]] = {
    "text": lambda: (lambda name: {k: [face(frame=name)] for k in ("a", "b", "c", "d")})(b"f 12"),
    "number": lambda: (lambda x: {k: [face(quality=x)] for k in ("a", "b", "c", "d")})(
        np.float32(0.1)
    ),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("what", SHARED)
def test_small_values_may_be_shared_by_all_videos(what: str, protocol: int, path: Path) -> None:
    content = pickle.dumps(SHARED[what](), protocol=protocol)
    check_against_oracle(read(path, content), content)


@pytest.mark.parametrize("field", ["feature", "box", "face"])
def test_a_large_value_of_an_earlier_video_is_not_kept(field: str, path: Path) -> None:
    shared = face()
    value = {"feature": shared[4], "box": [1.0, 2.0, 3.0, 4.0], "face": shared}[field]

    def faces() -> list[Any]:
        return [shared if field == "face" else face(**{field: value}), face()]

    with pytest.raises(VidfaceError, match=r"earlier video, which is not kept .*after \d videos"):
        read(path, {f"v{k}": faces() for k in range(9)})
    content = pickle.dumps({"v": faces() * 3, "w": [face()]})  # within a video, it may be shared
    check_against_oracle(read(path, content), content)


def test_a_name_twice(path: Path) -> None:
    for reader in (lambda p: list(iter_features(p)), feature_videos):
        path.write_bytes(pickle.dumps({b"a": [], b"b": [], b"a.mp4": []}))
        with pytest.raises(VidfaceError, match="video 'a' stands twice"):
            reader(path)


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (b"x", "video 'v' has no list of faces"),
        ([b"x"], r"face 0 \(from 0\) is not a list of frame"),
        ([face(), face()[:4]], r"face 1 \(from 0\) is not a list of frame"),
        ([[*face(), 1]], "face 0 .* is not a list of frame"),
        ([face(frame=None)], "a frame that is no text but NoneType"),
        ([face(frame=True)], "a frame that is no text but bool"),
        ([face(frame=[1])], "a frame that is no text but list"),
        ([face(frame=b"\xff")], "no printable UTF-8"),
        ([face(frame=b"a\x1b[2J")], "no printable UTF-8"),
        ([face(frame=b"1" * 257)], "a name of 257 characters"),
        ([face(box=(1.0, 2.0, 3.0))], "boxes have 3 numbers"),
        ([face(box=(1.0, 2.0, 3.0, 4.0, 5.0))], "boxes have 5 numbers"),
        (
            [face(), face(box=(1.0, 2.0, 3.0))],
            r"box of face 1 .* has 3 numbers, that of face 0 has 4",
        ),
        ([face(box=(1.0, 2.0, 3.0, "4"))], "box of face 0 .* not made of numbers"),
        ([face(), face(box=(1.0, 2.0, 3.0, True))], "box of face 1 .* not made of numbers"),
        ([face(box=5.0)], "box of face 0 .* not made of numbers"),
        ([face(box=np.ones((2, 2)))], r"box of face 0 .* an array of shape \(2, 2\), not one row"),
        ([face(det_score=None)], "det_score of face 0 .* not made of numbers"),
        ([face(), face(det_score=True)], "det_score of face 1 .* not made of numbers"),
        ([face(quality="1")], "quality of face 0 .* not made of numbers"),
        ([face(), face(quality=[])], "quality of face 1 .* is not one number"),
        ([face(quality=np.ones(2))], "quality of face 0 .* is not one number"),
        ([face(), face(d=5)], "feature of face 1 .* has 5 numbers, that of face 0 has 4"),
        ([face(d=0)], "features have no dimension"),
        ([face(feature=[])], "features have no dimension"),
        ([face(feature=None)], "feature of face 0 .* not made of numbers"),
        ([face(feature=np.ones((2, 2), "f2"))], r"an array of shape \(2, 2\), not one row"),
    ],
)
def test_faces_that_are_none(faces: Any, message: str, path: Path) -> None:
    with pytest.raises(VidfaceError, match=message) as caught:
        read(path, {"u": [face()], "v": faces})
    assert "video 'v'" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_text_among_the_fields_of_a_lone_face_is_no_next_video(path: Path) -> None:
    """No mark of a batch is open there: nothing may leave."""
    with pytest.raises(VidfaceError, match=r"the det_score of face 0 .* numbers"):
        read(path, {"v": [face(det_score="1")]}, protocol=2)


def test_an_array_without_data_beside_one_of_the_same_form(path: Path) -> None:
    """An array before its data is of no shape; so is a lone byte."""
    byte = EMPTY_ARRAY + b"(K\x01)" + dtype_of(b"u1") + b"\x89U\x01\x05tb"
    box = b"(K\x01K\x02K\x03K\x04tK\x01K\x01"
    faces = b"".join(b"](U\x011" + box + feature + b"e" for feature in (byte, EMPTY_ARRAY))
    with pytest.raises(VidfaceError, match=r"feature of face 1 .* is an array without data"):
        read(path, b"\x80\x02}U\x01v](" + faces + b"es.")


def test_dimensions_that_differ_between_videos(path: Path) -> None:
    path.write_bytes(pickle.dumps({"e": [], "u": [face()], "f": [], "v": [face(d=5)]}))
    videos = iter_features(path)
    assert [next(videos).video for _ in range(3)] == ["e", "u", "f"]
    with pytest.raises(VidfaceError, match="'v': features of 5 dimensions, but of 4 in"):
        next(videos)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (5, "a key that is no text"),
        (None, "a key that is no text"),
        (("a", "b"), "a key that is no text"),
        (b"\xff", "no printable UTF-8"),
        ("a\nb", "no printable UTF-8"),
        (b".mp4", "empty name"),
        ("", "empty name"),
        (b"x" * 257, "a name of 257 characters"),
    ],
)
def test_keys_that_name_no_video(key: Any, message: str, path: Path) -> None:
    path.write_bytes(pickle.dumps({"u": [face()], key: [face()]}))
    for reader in (lambda p: list(iter_features(p)), feature_videos):
        with pytest.raises(VidfaceError, match=message) as caught:
            reader(path)
        assert str(caught.value).isprintable()


def test_a_video_checks_itself() -> None:
    good: dict[str, Any] = {
        "video": "v",
        "frames": ("1", "2"),
        "frame_index": np.zeros(2, np.int32),
        "boxes": np.zeros((2, 4), np.float32),
        "det_scores": np.zeros(2, np.float32),
        "qualities": np.zeros(2, np.float32),
        "features": np.zeros((2, 8), np.float16),
    }
    VideoFeatures(**good)
    VideoFeatures(**good | {"features": np.zeros((2, 8), np.float32)})
    for field, array in {
        "frame_index": np.zeros(2, np.int64),
        "boxes": np.zeros((4, 2), np.float32),
        "det_scores": np.zeros(3, np.float32),
        "qualities": np.zeros(2),
        "features": np.zeros((2, 8)),
    }.items():
        with pytest.raises(VidfaceError, match=f"video 'v': {field} must be"):
            VideoFeatures(**good | {field: array})
    for shape in ((3, 8), (2,), (2, 0)):
        with pytest.raises(VidfaceError, match="features must be"):
            VideoFeatures(**good | {"features": np.zeros(shape, np.float16)})
    with pytest.raises(VidfaceError, match="a frame_index is negative"):
        VideoFeatures(**good | {"frame_index": np.array([0, -1], np.int32)})


def test_a_file_that_is_cut_off(path: Path) -> None:
    write_python2(path, n_videos=3, n_faces=2)
    content = path.read_bytes()
    for size in {0, 1, 5, len(content) // 2, len(content) - 1, *range(10, len(content), 97)}:
        path.write_bytes(content[:size])
        seen = []
        with pytest.raises(VidfaceError, match=r"ends too early \(at byte .*after \d videos") as e:
            seen.extend(iter_features(path))  # extend keeps what came before the error
        count = sum(1 for _ in swallowing(path))
        assert f"after {count} videos" in str(e.value)


@pytest.mark.parametrize(
    "name", ["cPickle, protocol 0", "cPickle, protocol 2", "pickle, protocol 1"]
)
def test_a_file_that_is_cut_off_anywhere(name: str, path: Path) -> None:
    content = zlib.decompress(base64.b85decode(PYTHON2[name]))
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(VidfaceError, match=r"ends too early \(at byte"):
            feature_videos(path)


def test_a_length_beyond_the_file_is_refused_before_it_is_read(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"\x80\x02}B" + struct.pack("<I", 2**27))
        file.truncate(2**26)
    tracemalloc.start()
    try:
        with pytest.raises(VidfaceError, match="ends too early"):
            feature_videos(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def swallowing(path: Path) -> Iterator[VideoFeatures]:
    try:
        yield from iter_features(path)
    except VidfaceError:
        return


def test_items_come_before_the_file_ends(path: Path) -> None:
    """Within a batch of a thousand, a video comes as soon as the next one has begun."""
    write_python2(path, n_videos=5, n_faces=2)
    content = path.read_bytes()
    fourth = content.index(b"IQIYI_VID_TRAIN_0000003")
    path.write_bytes(content[: fourth + 60])
    assert sum(1 for _ in swallowing(path)) == 3


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for reader in (lambda p: list(iter_features(p)), feature_videos):
        with pytest.raises(VidfaceError, match="No such file"):
            reader(tmp_path / "none.pickle")
        with pytest.raises(VidfaceError, match="directory"):
            reader(tmp_path)
    with pytest.raises(VidfaceError, match="not a regular file"):
        feature_videos(Path(os.devnull))


def test_paths_may_be_text(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": [face()]}))
    assert feature_videos(str(path)) == [("a", 1)]
    assert [video.video for video in iter_features(str(path))] == ["a"]


class Touch:
    """What a hostile file holds: unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_file_that_runs_a_command(protocol: int, path: Path) -> None:
    target = path.with_name("touched")
    content = pickle.dumps({"a": [face(), Touch(target)]}, protocol=protocol)
    with pytest.raises(VidfaceError, match=r"asks for '(posix|nt)\.system'"):
        read(path, content)
    assert not target.exists()
    pickle.loads(content)
    assert target.exists()  # so the file would have run it


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY = b"cnumpy\nndarray\n"
F2 = b"cnumpy\ndtype\nU\x02f2K\x00K\x01\x87R"
HALF = F2 + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
EMPTY_ARRAY = ARRAY + NDARRAY + b"K\x00\x85U\x01b\x87R"


def filled(shape: bytes, dtype: bytes = HALF, data: bytes = b"U\x04abcd") -> bytes:
    return EMPTY_ARRAY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def dtype_of(code: bytes) -> bytes:
    return b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R"


HOSTILE = {
    "GLOBAL": (b"cos\nsystem\n", r"asks for 'os\.system'"),
    "STACK_GLOBAL": (b"\x8c\x08builtins\x8c\x04eval\x93", r"asks for 'builtins\.eval'"),
    "STACK_GLOBAL of bytes": (
        b"C\x08builtinsC\x04eval\x93",
        "is damaged .STACK_GLOBAL requires str",
    ),
    "GLOBAL with dots": (b"cnumpy\nndarray.dump\n", r"asks for 'numpy\.ndarray\.dump'"),
    "GLOBAL unprintable": (b"c\x1b[2J\nx\n", r"asks for '\\x1b\[2J\.x'"),
    "numpy.load": (b"cnumpy\nload\n", r"asks for 'numpy\.load'"),
    "copy_reg": (b"ccopy_reg\n_reconstructor\n", "asks for 'copy_reg"),
    "INST": (b"(S'true'\nios\nsystem\n", "asks for INST"),
    "OBJ": (b"(" + NDARRAY + b"o", "asks for OBJ"),
    "NEWOBJ": (NDARRAY + b")\x81", "asks for NEWOBJ"),
    "NEWOBJ_EX": (NDARRAY + b")}\x92", "a dict within its value"),
    "EXT1": (b"\x82\x01", "asks for EXT1"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "asks for EXT4"),
    "PERSID": (b"Pa\n", "asks for PERSID"),
    "BINPERSID": (b"NQ", "asks for BINPERSID"),
    "NEXT_BUFFER": (b"\x97", "asks for NEXT_BUFFER"),
    "LONG4": (b"\x8b\x01\x00\x00\x00\x05", "asks for LONG4"),
    "EMPTY_SET": (b"\x8f", "asks for EMPTY_SET"),
    "no opcode": (b"\xff", "is no pickle, or damaged"),
    "protocol 6": (b"\x80\x06", "protocol 6"),
    "REDUCE of text": (b"U\x01a)R", "calls something that makes no array"),
    "REDUCE of a list": (NDARRAY + b"]R", "calls something that makes no array"),
    "ndarray called": (NDARRAY + b"K\x01\x85\x85R", "calls ndarray"),
    "_reconstruct of dtype": (ARRAY + b"cnumpy\ndtype\nK\x00\x85U\x01b\x87R", "calls _reconstruct"),
    "_reconstruct of nothing": (ARRAY + b")R", "calls _reconstruct"),
    "_frombuffer of nothing": (b"cnumpy.core.numeric\n_frombuffer\n)R", "calls _frombuffer"),
    "scalar of text": (b"cnumpy.core.multiarray\nscalar\nU\x02f2U\x02ab\x86R", "calls scalar"),
    "scalar of nothing": (b"cnumpy.core.multiarray\nscalar\n)R", "calls scalar"),
    "scalar, short": (b"cnumpy.core.multiarray\nscalar\n" + HALF + b"U\x01a\x86R", "is damaged"),
    "scalar of an object": (
        b"cnumpy.core.multiarray\nscalar\n" + HALF + b"N\x86R",
        "calls scalar",
    ),
    "encode to rot13": (
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R",
        "calls encode",
    ),
    "encode of bytes": (
        b"c_codecs\nencode\nU\x01aX\x06\x00\x00\x00latin1\x86R",
        "calls encode",
    ),
    "encode of one": (b"c_codecs\nencode\nX\x01\x00\x00\x00a\x85R", "calls encode"),
    "encode of a list": (b"c_codecs\nencode\nX\x01\x00\x00\x00a]\x86R", "calls encode"),
    "encode beyond latin1": (
        b"c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1\x86R",
        "is damaged",
    ),
    "bytes of a number": (b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R", "calls bytes"),
    "objects": (dtype_of(b"O8"), "dtype that is not one of plain numbers"),
    "O": (dtype_of(b"O"), "dtype that is not one of plain numbers"),
    "V": (dtype_of(b"V8"), "dtype that is not one of plain numbers"),
    "text": (dtype_of(b"S4"), "dtype that is not one of plain numbers"),
    "complex": (dtype_of(b"c8"), "dtype that is not one of plain numbers"),
    "no dtype": (b"cnumpy\ndtype\n)R", "calls dtype"),
    "dtype of one": (b"cnumpy\ndtype\nU\x02f2\x85R", "calls dtype"),
    "dtype with fields": (
        F2 + b"(K\x03U\x01<NU\x01a\x85}J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        "a dict within",
    ),
    "dtype with a subarray": (F2 + b"(K\x03U\x01<)NNK\x00K\x00K\x00tb", "dtype that is not"),
    "dtype with a state of text": (F2 + b"U\x01<b", "dtype that is not"),
    "dtype with another order": (F2 + b"(K\x03U\x01ONNNK\x00K\x00K\x00tb", "dtype that is not"),
    "too few data": (filled(b"K\x03\x85"), r"shape \(3,\) whose data are not 6 bytes"),
    "too many data": (filled(b"K\x01\x85"), r"shape \(1,\) whose data are not 2 bytes"),
    "a shape that overflows": (
        filled(b"(" + b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40" * 4 + b"t"),
        "whose data are not",
    ),
    "a negative shape": (filled(b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86"), "whose shape is not"),
    "a shape of text": (filled(b"U\x01a\x85"), "whose shape is not"),
    "a shape of True": (filled(b"\x88\x85"), "whose shape is not"),
    "a number as shape": (filled(b"K\x02"), "whose shape is not"),
    "a shape of five": (filled(b"(" + b"K\x01" * 4 + b"K\x02t"), "whose shape is not"),
    "an array of text": (filled(b"K\x02\x85", dtype=b"U\x02f2"), "not of plain numbers"),
    "data in a list": (filled(b"K\x02\x85", data=b"]"), "whose data are not"),
    "data as text": (filled(b"K\x02\x85", data=b"X\x04\x00\x00\x00abcd"), "whose data are not"),
    "BUILD of a list": (b"]Nb", "builds something that is no array"),
    "BUILD of an array with a list": (EMPTY_ARRAY + b"]b", "builds something that is no array"),
    "BUILD of an array with 4": (EMPTY_ARRAY + b"(NNNNtb", "builds something that is no array"),
    "BUILD of a name": (NDARRAY + b"]b", "builds something that is no array"),
    "APPEND to text": (b"U\x01aNa", "is damaged"),
    "APPENDS to a tuple": (b")(Ne", "is damaged"),
    "a dict": (b"}", "a dict within its value"),
    "a dict in a list": (b"](}e", "a dict within its value"),
    "SETITEMS of the root in itself": (b"h\x00(U\x01w]u", "sets items of something"),
    "SETITEM of the root in a list": (b"](h\x00U\x01w]se", "sets items of something"),
    "SETITEM of a list": (b"]U\x01aNs", "sets items of something"),
    "SETITEMS of a list": (b"](U\x01aNu", "sets items of something"),
    "a huge string": (b"T\xff\xff\xff\x7fabc", "ends too early|more than"),
    "a negative string": (b"T\xff\xff\xff\xffabc", "negative byte count"),
    "huge bytes": (b"\x8e" + b"\xff" * 8, "exceeds system's maximum size"),
    "a huge bytearray": (b"\x96" + struct.pack("<Q", 2**40), "more than"),
    "huge text": (b"\x8d" + struct.pack("<Q", 2**62), "more than"),
    "bytes beyond the file": (b"B" + struct.pack("<I", 2**27), "ends too early"),
    "a huge number": (b"\x8a\xff" + b"\x01" * 255, "more than 64 bits"),
    "a huge number in text": (b"I" + b"9" * 4000 + b"\n", "more than 64 bits"),
    "65 bits in text": (b"L18446744073709551616L\n", "more than 64 bits"),
    "no number": (b"Iabc\n", "is damaged"),
    "no float": (b"Fabc\n", "is damaged"),
    "an endless line": (b"S'" + b"a" * 2**21, "line of more than"),
    "a string without quotes": (b"Sabc\n", "without quotes"),
    "a string with one quote": (b"S'\n", "without quotes"),
    "a broken escape": (b"S'\\x'\n", "other escapes"),
    "an unknown escape": (b"S'\\N'\n", "other escapes"),
    "broken UTF-8": (b"X\x01\x00\x00\x00\xff", "is damaged"),
    "BINGET of nothing": (b"h\xc8", "an object that it has not stored"),
    "LONG_BINGET of nothing": (b"j\xff\xff\xff\xff", "an object that it has not stored"),
    "GET of nothing": (b"g-1\n", "an object that it has not stored"),
    "GET of text": (b"gabc\n", "is damaged"),
    "marks": (b"(" * 100_000, "nested deeper than 64"),
    "lists in lists": (b"]" * 100_000 + b"a" * 99_999, "no list of faces|face 0"),
    "tuples in tuples": (b")" + b"\x85" * 100_000, "face 0"),
    "the root in itself": (b"h\x00", "no list of faces"),
    "a list in itself": (b"]q\x01h\x01a", "face 0"),
    "a face that is its own fields": (
        b"]q\x01(h\x01h\x01h\x01h\x01h\x01e",
        "frame that is no text",
    ),
    "an array without data": (
        b"](]" + b"(U\x011(" + b"K\x01" * 4 + b"tK\x01K\x01" + EMPTY_ARRAY + b"ee",
        "without data",
    ),
    "below the mark": (b"(a", "is damaged"),
    "a tuple of nothing": (b"(\x87", "is damaged"),
    "a stop too soon": (b".", "does not hold one dict alone"),
    "appends without a mark": (b"Ne" + b"N" * 20, "is damaged"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_refused(what: str, path: Path) -> None:
    value, message = HOSTILE[what]
    content = b"\x80\x02}q\x00U\x01v" + value + b"s." + b"N" * 20
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(VidfaceError, match=message) as caught:
            list(iter_features(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert peak < 2**25


def test_lists_that_double_are_never_unfolded(path: Path) -> None:
    """Sixty lists, each of the one before twice: 2^60 items if anyone copied them."""
    doubled = b"]q\x01" + b"".join(b"](h\x01h\x01eq\x01" for _ in range(60))
    with pytest.raises(VidfaceError, match="face 0 "):
        read(path, b"\x80\x02}U\x01v(" + doubled + b"ls.")
    for depth in (1, 60):
        value: list[Any] = []
        for _ in range(depth):
            value = [value, value]
        with pytest.raises(VidfaceError, match="face 0 "):
            read(path, {"v": value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02].", "does not hold one dict alone"),
        (b"\x80\x02N.", "does not hold one dict alone"),
        (b"\x80\x02]}.", "a dict within its value"),
        (b"\x80\x02}N.", "does not hold one dict alone"),
        (b"\x80\x02}(.", "does not hold one dict alone"),
        (b"\x80\x02}}.", "a dict within its value"),
        (b"\x80\x02(U\x01ad." + b"N" * 20, "a key without a value"),
        (b"\x80\x02}(U\x01au." + b"N" * 20, "a key without a value"),
        (b"\x80\x02}q\x01(U\x01a](h\x01U\x01b]uu.", "sets items of something"),
        (b"PK\x03\x04 a zip", "asks for PERSID"),
        (b"\x1f\x8b a gzip file", "is no pickle"),
        (b"version https://git-lfs", "is no pickle"),
        (b"\n", "is no pickle"),
        (b"", "ends too early"),
    ],
)
def test_what_is_no_pickled_dict(content: bytes, message: str, path: Path) -> None:
    with pytest.raises(VidfaceError, match=message):
        read(path, content)


def test_a_large_memo_key_takes_no_room(path: Path) -> None:
    content = b"\x80\x02}r\xff\xff\xff\xff(U\x01ar\xfe\xff\xff\xff]j\xfe\xff\xff\xff]u."
    tracemalloc.start()
    try:
        with pytest.raises(VidfaceError, match="'a' stands twice"):
            read(path, content)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_bounds_of_a_video(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(pickle.dumps({"u": [face()] * 3, "v": [face()] * 4}))
    monkeypatch.setattr(iqiyi_features, "MAX_FACES", 4)
    assert feature_videos(path) == [("u", 3), ("v", 4)]
    monkeypatch.setattr(iqiyi_features, "MAX_FACES", 3)
    with pytest.raises(VidfaceError, match="'v' has 4 faces; at most 3"):
        feature_videos(path)
    monkeypatch.setattr(iqiyi_features, "MAX_FACES", 9)
    monkeypatch.setattr(iqiyi_features, "MAX_VIDEOS", 2)
    assert len(feature_videos(path)) == 2
    monkeypatch.setattr(iqiyi_features, "MAX_VIDEOS", 1)
    with pytest.raises(VidfaceError, match="more than 1 videos"):
        feature_videos(path)


def test_bounds_of_an_item(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_python2(path, n_videos=20, n_faces=30)  # 34 kB each, 680 kB in all
    assert len(feature_videos(path)) == 20
    monkeypatch.setattr(inert_pickle, "_STEP", 10)
    monkeypatch.setattr(inert_pickle, "MAX_ITEM_BYTES", 80_000)  # of two, and a chunk
    monkeypatch.setattr(inert_pickle, "MAX_ITEM_CONTAINERS", 800)
    assert len(feature_videos(path)) == 20  # each item begins anew
    monkeypatch.setattr(inert_pickle, "MAX_ITEM_CONTAINERS", 200)
    with pytest.raises(VidfaceError, match="an item of more than 200 lists"):
        feature_videos(path)
    monkeypatch.setattr(inert_pickle, "MAX_ITEM_CONTAINERS", 800)
    monkeypatch.setattr(inert_pickle, "MAX_ITEM_BYTES", 30_000)
    with pytest.raises(VidfaceError, match="an item of more than 30,000 bytes"):
        feature_videos(path)
    monkeypatch.setattr(inert_pickle, "MAX_ITEM_CONTAINERS", 2001)  # a batch has 1000 lists
    assert len(read(path, {b"v%d" % k: [] for k in range(9000)})) == 9000


def test_opcodes_are_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "_STEP", 10)
    monkeypatch.setattr(inert_pickle, "MAX_ITEM_OPCODES", 500)
    assert len(read(path, {f"v{k}": [face()] for k in range(100)})) == 100  # each begins anew
    with pytest.raises(VidfaceError, match="an item of more than 500 opcodes"):
        read(path, b"\x80\x02}U\x01v(" + b"U\x02ab" * 1000)


@pytest.mark.parametrize("bomb", [b"]", b")\x85", b"()", b"(l"])
def test_containers_are_counted(bomb: bytes, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "_STEP", 10)
    monkeypatch.setattr(inert_pickle, "MAX_ITEM_CONTAINERS", 2000)
    monkeypatch.setattr(inert_pickle, "MAX_DEPTH", 10**6)
    with pytest.raises(VidfaceError, match="more than 2,000 lists"):
        read(path, b"\x80\x02}U\x01v" + bomb * 20_000)


def test_the_memo_keeps_short_values_up_to_its_bound(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = b"a frame of all videos"
    content = pickle.dumps({f"v{k}": [face(frame=frame)] for k in range(9)}, protocol=2)
    assert len(read(path, content)) == 9
    monkeypatch.setattr(inert_pickle, "MAX_KEPT_BYTES", 0)
    with pytest.raises(VidfaceError, match="earlier video, which is not kept"):
        read(path, content)
    # The first 100 videos fill a small memo, so a text that comes later isn't kept.
    names = [b"%d" % k for k in range(100)] + [frame] * 5
    videos = {f"v{k}": [face(frame=name), face(frame=b"x")] for k, name in enumerate(names)}
    content = pickle.dumps(videos, protocol=2)
    monkeypatch.setattr(inert_pickle, "MAX_KEPT_BYTES", 2**18)
    assert len(read(path, content)) == 105
    monkeypatch.setattr(inert_pickle, "MAX_KEPT_BYTES", 2**13)
    with pytest.raises(VidfaceError, match="earlier video, which is not kept"):
        read(path, content)


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
@pytest.mark.parametrize("writer", PYTHON2)
def test_wherever_a_step_ends(
    writer: str, step: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inert_pickle, "_STEP", step)
    content = zlib.decompress(base64.b85decode(PYTHON2[writer]))
    assert {video.video: video.features.tolist() for video in read(path, content)} == ROWS


@pytest.mark.slow
@pytest.mark.parametrize("pure", [False, True])
def test_memory_does_not_grow_with_the_file(pure: bool, tmp_path: Path) -> None:
    peaks = []
    for n_videos in (100, 1000):
        path = tmp_path / f"{n_videos}.pickle"
        write_python2(path, n_videos, n_faces=10, pure=pure)
        tracemalloc.start()
        try:
            n_faces = sum(len(video.frames) for video in iter_features(path))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert n_faces == 10 * n_videos
    more_faces, more_bytes = 9000, peaks[1] - peaks[0]
    # pickle, not cPickle, stores each frame's text and some of the arrays' parts.
    assert more_bytes / more_faces < (400 if pure else 40)  # a face takes 1,100 in the file
    assert peaks[0] < 2**21


MUTANTS = {
    **{name: zlib.decompress(base64.b85decode(text)) for name, text in PYTHON2.items()},
    **{
        f"python 3, protocol {protocol}": pickle.dumps(
            {b"a.mp4": [face(), face(box=[np.float32(1), 2, 3, 4])], "b": []}, protocol=protocol
        )
        for protocol in range(6)
    },
}


@given(
    st.sampled_from(sorted(MUTANTS)),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255), st.integers(0, 2)), max_size=4),
    st.integers(0, 2000),
)
@examples(400, deadline=2000)
def test_damaged_files_parse_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    changes: list[tuple[int, int, int]],
    cut: int,
) -> None:
    content = bytearray(MUTANTS[name])
    for place, byte, kind in changes:
        at = place % len(content)
        if kind == 0:
            content[at] = byte
        elif kind == 1:
            content.insert(at, byte)
        else:
            del content[at]
    if cut < 200:
        del content[cut:]
    path = tmp_path_factory.getbasetemp() / "damaged.pickle"
    path.write_bytes(content)
    for reader in (lambda p: list(iter_features(p)), feature_videos):
        with contextlib.suppress(VidfaceError):
            reader(path)
